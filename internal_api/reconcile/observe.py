"""What the hypervisor says of our domains, brought into the rows: by events, and by a slow full pass."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainEvent, DomainEventKind, DomainState
from internal_api.reconcile.own_starts import OwnStarts
from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import vms

if TYPE_CHECKING:
    from internal_api.host import Host
    from internal_api.reconcile.ready import ReadyWatch
    from terrace.engine.worker import Worker

_log = log.get(__name__)

_STATUS_OF: Final[Mapping[DomainState, str]] = {
    DomainState.RUNNING: "running",
    DomainState.PAUSED: "paused",
    DomainState.STOPPED: "stopped",
    DomainState.CRASHED: "crashed",
}
_OFF: Final = (DomainState.STOPPED, DomainState.CRASHED)
# Only these say that a guest's state may differ from what our own operations have recorded.
_TELLING: Final = frozenset({
    DomainEventKind.STARTED, DomainEventKind.STOPPED, DomainEventKind.DESTROYED, DomainEventKind.CRASHED,
    DomainEventKind.PAUSED, DomainEventKind.RESUMED,
})  # fmt: skip


class Observer:
    """Keeps the status of this node's VMs true."""

    def __init__(self, host: Host, worker: Worker, ready: ReadyWatch) -> None:
        self._host = host
        self._worker = worker
        self._ready = ready
        self._starts = OwnStarts(host, worker)
        self._again = asyncio.Event()
        host.hypervisor.on_reconnect(self._again.set)

    async def follow_events(self) -> None:
        """Hand each event to who waits for it, and look at domains whose power no operation of ours has in hand."""
        async for event in self._host.hypervisor.events():
            self._host.signals.emit(event)
            self._ready.on_event(event)
            if event.kind in _TELLING and not self._host.going_down:
                try:
                    await self._on_event(event)
                except (*DATABASE_ERRORS, TerraceError) as exc:
                    _log.warning("observe_failed", error=repr(exc))
                    self._again.set()

    async def full_passes(self) -> None:
        """Compare all domains with all rows: at the start, after a reconnection, and every few seconds."""
        first = True
        while True:
            self._again.clear()
            try:
                await self._full_pass(first=first)
                first = False
            except (*DATABASE_ERRORS, TerraceError) as exc:
                _log.warning("full_pass_failed", error=repr(exc))
            try:
                await asyncio.wait_for(self._again.wait(), self._host.settings.full_pass_s)
            except TimeoutError:
                continue

    async def _on_event(self, event: DomainEvent) -> None:
        vm_id = self._host.vm_of_domain.get(event.domain)
        if vm_id is None:
            async with self._host.pool.acquire() as conn:
                vm = await vms.find_by_uuid(conn, event.domain)
            if vm is None or vm.node != self._host.node:
                return
            vm_id = self._host.vm_of_domain[event.domain] = vm.id
        if self._worker.settles_power(vm_id):
            return
        state = await self._host.hypervisor.find_state(event.domain)
        if state is None:
            return
        # a guest that its own user powers off is wanted stopped
        desired = "stopped" if event.kind is DomainEventKind.STOPPED and state is DomainState.STOPPED else None
        async with self._host.pool.acquire() as conn:
            changed = await vms.observe(conn, vm_id, self._host.node, _STATUS_OF[state], desired=desired)
        if changed:
            _log.info("vm_observed", vm=vm_id, status=_STATUS_OF[state], because=event.kind)

    async def _full_pass(self, *, first: bool) -> None:
        # rows first: a VM made in between has no row here, and is looked at by the next pass
        async with self._host.pool.acquire() as conn:
            owned = await vms.list_of_node(conn, self._host.node)
        busy = {vm.id for vm in owned if self._worker.settles_power(vm.id)}
        states = await self._host.hypervisor.list_states()
        self._host.vm_of_domain = {vm.uuid: vm.id for vm in owned}
        self._starts.keep_to(owned)
        for vm in owned:
            state = states.get(vm.uuid, DomainState.STOPPED)
            is_busy = vm.id in busy or self._worker.settles_power(vm.id)
            is_off = state in _OFF
            if first and (is_busy or is_off):
                self._starts.want(vm)
            if is_busy:
                continue
            if not is_off:
                self._starts.forget(vm)
            elif await self._starts.begin(vm):
                continue
            if vm.status != _STATUS_OF[state] and vm.status != "creating":
                async with self._host.pool.acquire() as conn:
                    await vms.observe(conn, vm.id, self._host.node, _STATUS_OF[state], since=vm.operation_id)
        if first:
            for vm in owned:
                await self._host.placement.set(vm.project_id, vm.id, self._host.node)
