"""A hypervisor that lives in files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from internal_api.drivers.broadcast import Broadcast
from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.files import ObjectFolder
from internal_api.drivers.fake.hypervisor_disks import FakeDisk, FakeDisks
from internal_api.drivers.protocols import (
    DomainDisk,
    DomainEvent,
    DomainEventKind,
    DomainSpec,
    DomainState,
    SharedPool,
)
from terrace.errors import Permanent, Transient

_ALIVE = frozenset({DomainState.RUNNING, DomainState.PAUSED})


class FakeHypervisor:
    """Implements ``Hypervisor``. Guests are not booted; they obey ACPI, and the agent if there is one."""

    def __init__(
        self, world: Path, faults: Faults | None = None, *, has_agent: bool = False, obeys_acpi: bool = True
    ) -> None:
        self.faults = faults or Faults(world / "faults")
        self.has_agent = has_agent
        self.obeys_acpi = obeys_acpi
        self._domains = ObjectFolder(world / "domains")
        self._events: Broadcast[DomainEvent] = Broadcast()
        self._reconnect_callbacks: list[Callable[[], None]] = []

    @property
    def boots_guests(self) -> bool:
        return False

    async def connect(self) -> None:
        async with self.faults.around("connect"):
            self._domains.create()

    async def close(self) -> None:
        self._events.close()

    async def ping(self) -> None:
        async with self.faults.around("ping"):
            pass

    async def ensure_defined(self, spec: DomainSpec) -> None:
        async with self.faults.around("ensure_defined"):
            found = self._domains.find(str(spec.uuid)) or {"state": DomainState.STOPPED}
            self._put(spec.uuid, found | {"name": spec.domain_name, "defined": FakeDisks.define(spec.disks)})

    async def ensure_started(self, domain: UUID) -> bool:
        async with self.faults.around("ensure_started"):
            match self._state(domain):
                case None:
                    raise Permanent("operation_failed", "The VM's domain is missing on its node.")
                case DomainState.RUNNING:
                    return False
                case DomainState.PAUSED:
                    self._change(domain, DomainState.RUNNING, DomainEventKind.RESUMED)
                case _:
                    self._change(domain, DomainState.RUNNING, DomainEventKind.STARTED)
            return True

    async def ensure_stopped(self, domain: UUID) -> None:
        async with self.faults.around("ensure_stopped"):
            if self._state(domain) in _ALIVE:
                self._change(domain, DomainState.STOPPED, DomainEventKind.DESTROYED)

    async def remove(self, domain: UUID) -> None:
        async with self.faults.around("remove"):
            if self._state(domain) in _ALIVE:
                self._tell(domain, DomainEventKind.DESTROYED)
            if self._domains.remove(str(domain)):
                self._tell(domain, DomainEventKind.UNDEFINED)

    async def ensure_pool(self, pool: SharedPool) -> None:
        async with self.faults.around("ensure_pool"):
            pass

    async def attach_disk(self, domain: UUID, disk: DomainDisk) -> None:
        async with self.faults.around("attach_disk"), self._edited(domain) as disks:
            if disks is None:
                raise Permanent("operation_failed", "The VM's domain is missing on its node.")
            disks.plug(disk)

    async def detach_disk(self, domain: UUID, slot: int) -> None:
        async with self.faults.around("detach_disk"), self._edited(domain) as disks:
            if disks is None:
                return
            if disks.is_live(slot) and (self.faults.are_set("deaf") or self._state(domain) is DomainState.PAUSED):
                raise Transient("device_busy", "The guest does not let the disk go.", internal=f"slot {slot}")
            disks.unplug(slot)

    async def grow_disk(self, domain: UUID, slot: int, size_bytes: int) -> bool:
        async with self.faults.around("grow_disk"), self._edited(domain) as disks:
            return disks is not None and disks.grow(slot, size_bytes)

    async def freeze(self, domain: UUID, timeout_s: float) -> bool:
        async with self.faults.around("freeze"):
            found = self._domains.find(str(domain))
            if not self.has_agent or found is None or found["state"] != DomainState.RUNNING:
                return False
            self._put(domain, found | {"frozen": True})
            return True

    async def thaw(self, domain: UUID, timeout_s: float) -> None:
        async with self.faults.around("thaw"):
            found = self._domains.find(str(domain))
            if found is not None and found.get("frozen"):
                self._put(domain, found | {"frozen": False})

    async def snapshot_disks(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        async with self.faults.around("snapshot_disks"), self._edited(domain) as disks:
            return disks is not None and disks.snapshot(slots, snapshot)

    async def remove_disk_snapshots(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        async with self.faults.around("remove_disk_snapshots"), self._edited(domain) as disks:
            return disks is not None and disks.remove_snapshots(slots, snapshot)

    async def find_state(self, domain: UUID) -> DomainState | None:
        async with self.faults.around("find_state"):
            return self._state(domain)

    async def list_states(self) -> Mapping[UUID, DomainState]:
        async with self.faults.around("list_states"):
            found = ((UUID(name), self._state(UUID(name))) for name in self._domains.names())
            return {uuid: state for uuid, state in found if state is not None}

    async def shutdown_by_agent(self, domain: UUID, *, reboot: bool = False) -> bool:
        async with self.faults.around("shutdown_by_agent"):
            if not self.has_agent or self._state(domain) is not DomainState.RUNNING:
                return False
            self._shut_down(domain, reboot=reboot)
            return True

    async def shutdown_by_acpi(self, domain: UUID) -> None:
        async with self.faults.around("shutdown_by_acpi"):
            if self.obeys_acpi and not self.faults.are_set("deaf") and self._state(domain) is DomainState.RUNNING:
                self._shut_down(domain, reboot=False)

    async def reset(self, domain: UUID) -> None:
        async with self.faults.around("reset"):
            if self._state(domain) is None:
                raise Permanent("operation_failed", "The VM's domain is missing on its node.")
            if self._state(domain) not in _ALIVE:
                raise Transient("hypervisor_unavailable", "The hypervisor failed.", internal="not running")
            self._tell(domain, DomainEventKind.REBOOTED)

    async def agent_answers(self, domain: UUID, timeout_s: float) -> bool:
        async with self.faults.around("agent_answers"):
            return self.has_agent and self._state(domain) is DomainState.RUNNING

    async def agent_addresses(self, domain: UUID, timeout_s: float) -> Mapping[str, Sequence[str]]:
        async with self.faults.around("agent_addresses"):
            return {}

    def events(self) -> AsyncIterator[DomainEvent]:
        return self._events.listen()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._reconnect_callbacks.append(callback)

    # What a test does to the world behind Terrace's back.

    def happen(self, domain: UUID, state: DomainState, kind: DomainEventKind) -> None:
        """The guest does something by itself: powers off, crashes, …"""
        self._change(domain, state, kind)

    def reconnect(self) -> None:
        """As if the connection had been lost and found."""
        for callback in self._reconnect_callbacks:
            callback()

    def disks_of(self, domain: UUID, *, live: bool) -> Mapping[int, FakeDisk]:
        """By slot: the disks of the running guest, or of the definition."""
        found = self._domains.find(str(domain))
        return {} if found is None else FakeDisks(found).read(live=live)

    def is_frozen(self, domain: UUID) -> bool:
        found = self._domains.find(str(domain))
        return found is not None and bool(found.get("frozen"))

    def _shut_down(self, domain: UUID, *, reboot: bool) -> None:
        if reboot:
            self._tell(domain, DomainEventKind.REBOOTED)
        else:
            self._change(domain, DomainState.STOPPED, DomainEventKind.STOPPED)

    def _state(self, domain: UUID) -> DomainState | None:
        found = self._domains.find(str(domain))
        return None if found is None else DomainState(found["state"])

    @contextlib.asynccontextmanager
    async def _edited(self, domain: UUID) -> AsyncIterator[FakeDisks | None]:
        """The domain's disks, kept as they are afterwards unless the block raises."""
        found = self._domains.find(str(domain))
        if found is None:
            yield None
        else:
            yield FakeDisks(found)
            self._put(domain, found)

    def _put(self, domain: UUID, found: Mapping[str, Any]) -> None:
        self._domains.put(str(domain), found)

    def _change(self, domain: UUID, state: DomainState, kind: DomainEventKind) -> None:
        found = self._domains.find(str(domain))
        if found is not None:
            was_alive = found["state"] in _ALIVE
            if state in _ALIVE and not was_alive:
                FakeDisks(found).start()
            elif state not in _ALIVE:
                FakeDisks(found).stop()
            self._put(domain, found | {"state": state})
            self._tell(domain, kind)

    def _tell(self, domain: UUID, kind: DomainEventKind) -> None:
        self._events.publish(DomainEvent(domain, kind))
