"""When a guest really answers: guest agent first, else its SSH port, else its address."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from internal_api.drivers.protocols import DomainEvent, DomainEventKind
from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import vms
from terrace.store.vms import Vm

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_ROUND_S = 0.5
_RELOAD_S = 5.0
_SSH_PORT = 22
_TCP_TIMEOUT_S = 0.4
_AGENT_TIMEOUT_S = 1.0
_PATIENCE_S = 120.0  # after this long a guest is looked at every tenth round only
_ADDRESS_COUNTS_AFTER_S = 60.0  # a guest with neither agent nor SSH is ready when its address answers


@dataclass(slots=True)
class _Waiting:
    vm: Vm
    since: float = field(default_factory=time.monotonic)


class ReadyWatch:
    """Fills ``ready_at`` of this node's running VMs, and addresses that a foreign DHCP server gave."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: dict[UUID, _Waiting] = {}
        self._wake = asyncio.Event()
        self._reload_at = 0.0

    def on_event(self, event: DomainEvent) -> None:
        """A start makes a VM worth watching; a connected agent may make it ready."""
        if event.kind is DomainEventKind.AGENT_CONNECTED:
            self._wake.set()
        elif event.kind in (DomainEventKind.STARTED, DomainEventKind.REBOOTED):
            self._reload_at = 0.0
            self._wake.set()

    async def follow_leases(self) -> None:
        """Record each address that somebody's DHCP server gives to one of our VMs."""
        async for lease in self._host.network.leases():
            try:
                async with self._host.pool.acquire() as conn:
                    vm_id = await vms.set_ip(conn, lease.mac, self._host.node, lease.ip)
                if vm_id is not None:
                    _log.info("vm_lease", vm=vm_id)
            except DATABASE_ERRORS as exc:
                _log.warning("lease_not_saved", error=repr(exc))

    async def watch(self) -> None:
        """Look at every guest that has not answered since its start."""
        if not self._host.hypervisor.boots_guests:
            return
        number = 0
        while True:
            self._wake.clear()
            number += 1
            try:
                await self._reload()
                looks = [
                    self._look(waiting)
                    for waiting in self._waiting.values()
                    if number % 10 == 0 or time.monotonic() - waiting.since < _PATIENCE_S
                ]
                for start in range(0, len(looks), 16):
                    await asyncio.gather(*looks[start : start + 16])
            except (*DATABASE_ERRORS, TerraceError) as exc:
                _log.warning("ready_watch_failed", error=repr(exc))
            try:
                await asyncio.wait_for(self._wake.wait(), _ROUND_S if self._waiting else _RELOAD_S)
            except TimeoutError:
                continue

    async def _reload(self) -> None:
        if time.monotonic() < self._reload_at:
            return
        async with self._host.pool.acquire() as conn:
            found = await vms.list_not_ready(conn, self._host.node)
        # starting VMs are listed, too: their event may come before their row says running
        self._waiting = {vm.uuid: self._waiting.get(vm.uuid, _Waiting(vm)) for vm in found}
        for vm in found:
            self._waiting[vm.uuid].vm = vm
        starting = any(vm.status != "running" for vm in found)
        self._reload_at = time.monotonic() + (_ROUND_S if starting else _RELOAD_S)

    async def _look(self, waiting: _Waiting) -> None:
        vm = waiting.vm
        if vm.status != "running":
            return
        hypervisor = self._host.hypervisor
        agent = await hypervisor.agent_answers(vm.uuid, _AGENT_TIMEOUT_S)
        if vm.ip is None and vm.dhcp == "external":
            await self._find_address(vm, agent)
        if not (agent or await self._address_answers(waiting)):
            return
        async with self._host.pool.acquire() as conn:
            news = await vms.set_ready(conn, vm.id, self._host.node)
        if vm.ip is not None:
            self._waiting.pop(vm.uuid, None)
        if news:
            _log.info("vm_ready", vm=vm.id, by="agent" if agent else "address")

    async def _address_answers(self, waiting: _Waiting) -> bool:
        ip = waiting.vm.ip
        if ip is None:
            return False
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(ip, _SSH_PORT), _TCP_TIMEOUT_S)
        except (OSError, TimeoutError):
            if time.monotonic() - waiting.since < _ADDRESS_COUNTS_AFTER_S:
                return False
            return await self._host.network.find_neighbour(waiting.vm.mac, waiting.vm.bridge) is not None
        writer.close()
        return True

    async def _find_address(self, vm: Vm, agent: bool) -> None:
        """The address of a VM whose lease was missed, as its agent or the neighbour table tells."""
        ip = None
        if agent:
            addresses = await self._host.hypervisor.agent_addresses(vm.uuid, _AGENT_TIMEOUT_S)
            ip = next(iter(addresses.get(vm.mac, ())), None)
        ip = ip or await self._host.network.find_neighbour(vm.mac, vm.bridge)
        if ip is not None:
            async with self._host.pool.acquire() as conn:
                await vms.set_ip(conn, vm.mac, self._host.node, ip)
            self._reload_at = 0.0
