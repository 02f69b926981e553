"""Domains by libvirt: ``qemu:///…`` for guests, ``test:///default`` for libvirt's own in-memory driver.

The ``libvirt_*`` files beside this one are the only ones that import libvirt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt

from internal_api.domain_xml import HostFacts, domain_xml
from internal_api.drivers import libvirt_agent as agent
from internal_api.drivers.broadcast import Broadcast
from internal_api.drivers.libvirt_calls import DomainCalls
from internal_api.drivers.libvirt_connection import CALL_TIMEOUT_S, LibvirtConnection
from internal_api.drivers.libvirt_disks import LibvirtDisks
from internal_api.drivers.libvirt_domains import OurDomains, find_domain_state
from internal_api.drivers.libvirt_events import LifecycleReader
from internal_api.drivers.libvirt_freezer import LibvirtFreezer
from internal_api.drivers.libvirt_pool import ensure_pool
from internal_api.drivers.protocols import (
    DomainDisk,
    DomainEvent,
    DomainEventKind,
    DomainSpec,
    DomainState,
    SharedPool,
)
from terrace.errors import Permanent, Transient

PING_TIMEOUT_S = 5.0
START_TIMEOUT_S = 60.0
# libvirt gives QEMU 10 s to end by SIGTERM and then kills it
DESTROY_TIMEOUT_S = 45.0
AGENT_PING_TIMEOUT_S = 3.0
POOL_TIMEOUT_S = 20.0
_ALIVE = frozenset({DomainState.RUNNING, DomainState.PAUSED})


class LibvirtHypervisor:
    """Implements :class:`internal_api.drivers.protocols.Hypervisor`."""

    def __init__(self, uri: str, host: HostFacts) -> None:
        self._host = host
        self._connection = LibvirtConnection(uri, self._enqueue, self._reconnected)
        self._domains = OurDomains()
        self._calls = DomainCalls(self._connection, self._domains)
        self._disks = LibvirtDisks(self._calls, hotplug=not self._connection.is_test)
        self._freezer = LibvirtFreezer(self._calls)
        self._lifecycle = LifecycleReader()
        self._raw: asyncio.Queue[tuple[str, UUID, tuple[int, ...]]] = asyncio.Queue()
        self._events: Broadcast[DomainEvent] = Broadcast()
        self._dispatcher: asyncio.Task[None] | None = None
        self._reconnect_callbacks: list[Callable[[], None]] = []

    @property
    def boots_guests(self) -> bool:
        return not self._connection.is_test

    async def connect(self) -> None:
        if self._host.console_log_dir is not None:
            try:
                self._host.console_log_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Transient(
                    "hypervisor_unavailable", "The consoles' log folder can't be made.", internal=str(error)
                ) from error
        await self._connection.open()
        self._dispatcher = asyncio.create_task(self._dispatch(), name="libvirt-dispatcher")

    async def close(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.wait([self._dispatcher])
            self._dispatcher = None
        await self._freezer.close()
        self._events.close()
        self._domains.clear()
        await self._connection.close()

    async def ping(self) -> None:
        await self._connection.call(lambda conn: conn.getLibVersion(), timeout_s=PING_TIMEOUT_S)

    async def ensure_defined(self, spec: DomainSpec) -> None:
        xml = domain_xml(spec, self._host)

        def define(conn: Any) -> None:
            # a running domain takes the new definition at its next start
            self._domains.remember(spec.uuid, conn.defineXML(xml))

        await self._connection.call(define, key=f"change {spec.uuid}")

    async def ensure_started(self, domain: UUID) -> bool:
        return await self._calls.on(domain, _start, timeout_s=START_TIMEOUT_S)

    async def ensure_stopped(self, domain: UUID) -> None:
        await self._calls.on_existing(domain, _destroy, timeout_s=DESTROY_TIMEOUT_S)

    async def remove(self, domain: UUID) -> None:
        await self._calls.on_existing(domain, self._remove, timeout_s=DESTROY_TIMEOUT_S)

    async def ensure_pool(self, pool: SharedPool) -> None:
        if self._connection.is_test:
            return
        # one at a time: a second attempt waits for the end of one that hangs
        await self._connection.call(ensure_pool, pool, key=f"pool {pool.name}", timeout_s=POOL_TIMEOUT_S)

    async def attach_disk(self, domain: UUID, disk: DomainDisk) -> None:
        await self._disks.attach(domain, disk)

    async def detach_disk(self, domain: UUID, slot: int) -> None:
        await self._disks.detach(domain, slot)

    async def grow_disk(self, domain: UUID, slot: int, size_bytes: int) -> bool:
        return await self._disks.grow(domain, slot, size_bytes)

    async def freeze(self, domain: UUID, timeout_s: float) -> bool:
        return await self._freezer.freeze(domain, timeout_s)

    async def thaw(self, domain: UUID, timeout_s: float) -> None:
        await self._freezer.thaw(domain, timeout_s)

    async def snapshot_disks(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        return await self._disks.snapshot(domain, slots, snapshot)

    async def remove_disk_snapshots(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        return await self._disks.remove_snapshots(domain, slots, snapshot)

    async def find_state(self, domain: UUID) -> DomainState | None:
        return await self._calls.on_existing(domain, find_domain_state, lane=None)

    async def list_states(self) -> Mapping[UUID, DomainState]:
        return await self._connection.call(self._domains.list_states)

    async def shutdown_by_agent(self, domain: UUID, *, reboot: bool = False) -> bool:
        def ask(handle: Any) -> bool:
            return agent.shutdown(handle, AGENT_PING_TIMEOUT_S, reboot=reboot)

        return bool(await self._calls.on_existing(domain, ask, lane="agent"))

    async def shutdown_by_acpi(self, domain: UUID) -> None:
        # virDomainReboot by ACPI is not used: a guest that misses the button would be started again by
        # libvirt when it is shut down at some later time.
        # libvirt's test driver knows no way of shutting down but its own.
        flags = 0 if self._connection.is_test else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN

        def press(handle: Any) -> None:
            try:
                handle.shutdownFlags(flags)
            except libvirt.libvirtError:
                if find_domain_state(handle) in _ALIVE:
                    raise

        await self._calls.on_existing(domain, press)

    async def reset(self, domain: UUID) -> None:
        await self._calls.on(domain, lambda handle: handle.reset(0))

    async def agent_answers(self, domain: UUID, timeout_s: float) -> bool:
        def ask(handle: Any) -> bool:
            return agent.ping(handle, timeout_s)

        return bool(await self._calls.on_existing(domain, ask, lane="agent", timeout_s=timeout_s + CALL_TIMEOUT_S))

    async def agent_addresses(self, domain: UUID, timeout_s: float) -> Mapping[str, Sequence[str]]:
        def ask(handle: Any) -> Mapping[str, Sequence[str]]:
            return agent.addresses(handle, timeout_s)

        found = await self._calls.on_existing(domain, ask, lane="agent", timeout_s=timeout_s + CALL_TIMEOUT_S)
        return found or {}

    def events(self) -> AsyncIterator[DomainEvent]:
        return self._events.listen()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._reconnect_callbacks.append(callback)

    def _remove(self, handle: Any) -> None:
        _destroy(handle)
        _remove_console_logs(self._host.console_log_dir, handle.name())
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        if not self._connection.is_test:
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        try:
            handle.undefineFlags(flags)
        except libvirt.libvirtError:
            if find_domain_state(handle) is not None:
                raise

    def _enqueue(self, kind: str, domain: UUID, *numbers: int) -> None:
        self._raw.put_nowait((kind, domain, numbers))

    def _reconnected(self) -> None:
        self._domains.clear()
        for callback in self._reconnect_callbacks:
            callback()

    async def _dispatch(self) -> None:
        while True:
            kind, domain, numbers = await self._raw.get()
            if not self._domains.knows(domain):
                try:
                    known = await self._calls.on_existing(domain, lambda handle: True, lane=None)
                except (Transient, Permanent):
                    known = None
                if known is None:
                    if kind == "lifecycle":
                        self._domains.forget(domain)  # redefined, perhaps, as one of ours
                    continue
            event = self._read(kind, domain, numbers)
            if event is not None:
                self._events.publish(DomainEvent(domain, event))

    def _read(self, kind: str, domain: UUID, numbers: tuple[int, ...]) -> DomainEventKind | None:
        match kind:
            case "lifecycle":
                event = self._lifecycle.read(domain, numbers[0], numbers[1])
                if event is DomainEventKind.UNDEFINED:
                    self._domains.forget(domain)
                return event
            case "reboot":
                return DomainEventKind.REBOOTED
            case _:
                if numbers[0] == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
                    return DomainEventKind.AGENT_CONNECTED
                return DomainEventKind.AGENT_DISCONNECTED


def _start(handle: Any) -> bool:
    """Try first and look only when that fails: starting is what is nearly always wanted."""
    try:
        handle.create()
    except libvirt.libvirtError:
        match find_domain_state(handle):
            case DomainState.RUNNING:
                return False
            case DomainState.PAUSED:
                handle.resume()
            case _:
                raise
    return True


def _destroy(handle: Any) -> None:
    try:
        handle.destroy()
    except libvirt.libvirtError:
        if find_domain_state(handle) in _ALIVE:
            raise


def _remove_console_logs(folder: Path | None, domain_name: str) -> None:
    """The log and what virtlogd has rotated away (``.0``, ``.1``, …)."""
    if folder is None:
        return
    log = folder / f"{domain_name}.log"
    for path in (log, *folder.glob(f"{log.name}.[0-9]*")):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
