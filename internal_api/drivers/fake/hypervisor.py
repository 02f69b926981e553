"""A hypervisor that lives in files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from internal_api.drivers.broadcast import Broadcast
from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.files import ObjectFolder
from internal_api.drivers.protocols import DomainEvent, DomainEventKind, DomainSpec, DomainState
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
            state = self._state(spec.uuid) or DomainState.STOPPED
            self._put(spec.uuid, state, spec.domain_name)

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

    def _shut_down(self, domain: UUID, *, reboot: bool) -> None:
        if reboot:
            self._tell(domain, DomainEventKind.REBOOTED)
        else:
            self._change(domain, DomainState.STOPPED, DomainEventKind.STOPPED)

    def _state(self, domain: UUID) -> DomainState | None:
        found = self._domains.find(str(domain))
        return None if found is None else DomainState(found["state"])

    def _put(self, domain: UUID, state: DomainState, name: str) -> None:
        self._domains.put(str(domain), {"state": state, "name": name})

    def _change(self, domain: UUID, state: DomainState, kind: DomainEventKind) -> None:
        found = self._domains.find(str(domain))
        if found is not None:
            self._put(domain, state, found["name"])
            self._tell(domain, kind)

    def _tell(self, domain: UUID, kind: DomainEventKind) -> None:
        self._events.publish(DomainEvent(domain, kind))
