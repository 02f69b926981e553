"""What the driver does with the disks of a domain while it may be running."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from internal_api.drivers import libvirt_plugs as plugs
from internal_api.drivers import libvirt_snapshots as snapshots
from internal_api.drivers.libvirt_calls import DomainCalls
from internal_api.drivers.libvirt_plugs import target_of
from internal_api.drivers.protocols import DomainDisk
from terrace.errors import Transient

# A guest that is still booting hears no request, hence they are repeated.
UNPLUG_TIMEOUT_S = 15.0
ASK_EVERY_S = 3.0
LOOK_EVERY_S = 0.1
# QEMU counts the references to all clusters of an image anew, which takes seconds for a large one
SNAPSHOT_TIMEOUT_S = 120.0


class LibvirtDisks:
    """The methods of :class:`internal_api.drivers.protocols.Hypervisor` of the same names.

    ``hotplug=False`` is for libvirt's test driver: its guests have no disks, only their definitions do.
    """

    def __init__(self, calls: DomainCalls, *, hotplug: bool) -> None:
        self._calls = calls
        self._hotplug = hotplug

    async def attach(self, domain: UUID, disk: DomainDisk) -> None:
        plug = plugs.plug if self._hotplug else plugs.plug_in_definition
        await self._calls.on(domain, lambda handle: plug(handle, disk))

    async def detach(self, domain: UUID, slot: int) -> None:
        """Waits outside of the domain's lane, as the domain may have to be powered off meanwhile."""
        target = target_of(slot)
        if not self._hotplug:
            await self._calls.on_existing(domain, lambda handle: plugs.unplug_in_definition(handle, target))
            return
        now = asyncio.get_running_loop().time
        deadline, ask_at, last = now() + UNPLUG_TIMEOUT_S, now(), ""
        while True:
            ask = now() >= ask_at
            busy = await self._calls.on_existing(domain, partial(plugs.unplug, target=target, ask=ask))
            if busy is None:
                return
            if ask:
                ask_at, last = now() + ASK_EVERY_S, busy
            if now() >= deadline:
                raise Transient("device_busy", "The guest does not let the disk go.", internal=f"{target}: {last}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def grow(self, domain: UUID, slot: int, size_bytes: int) -> bool:
        target = target_of(slot)
        if not self._hotplug:
            return False
        return bool(await self._calls.on_existing(domain, lambda handle: plugs.grow(handle, target, size_bytes)))

    async def snapshot(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        targets = [target_of(slot) for slot in slots]
        if not self._hotplug:
            return False
        return bool(
            await self._calls.on_existing(
                domain, lambda handle: snapshots.take(handle, targets, snapshot), timeout_s=SNAPSHOT_TIMEOUT_S
            )
        )

    async def remove_snapshots(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        targets = [target_of(slot) for slot in slots]
        if not self._hotplug:
            return False
        return bool(
            await self._calls.on_existing(
                domain, lambda handle: snapshots.remove(handle, targets, snapshot), timeout_s=SNAPSHOT_TIMEOUT_S
            )
        )
