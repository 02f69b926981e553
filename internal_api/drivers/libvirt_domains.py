"""Which of the host's domains are ours, and what state they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import libvirt

from internal_api.domain_xml import XMLNS
from internal_api.drivers.protocols import DomainState


def read_state(state: int, reason: int) -> DomainState:
    """``virDomainState`` with its reason; raises ValueError for a number that libvirt does not define."""
    match state:
        case libvirt.VIR_DOMAIN_RUNNING | libvirt.VIR_DOMAIN_BLOCKED | libvirt.VIR_DOMAIN_SHUTDOWN:
            return DomainState.RUNNING  # VIR_DOMAIN_SHUTDOWN: on its way down, not yet off
        case libvirt.VIR_DOMAIN_PAUSED | libvirt.VIR_DOMAIN_PMSUSPENDED:
            return DomainState.PAUSED
        case libvirt.VIR_DOMAIN_SHUTOFF if reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
            return DomainState.CRASHED
        case libvirt.VIR_DOMAIN_SHUTOFF | libvirt.VIR_DOMAIN_NOSTATE:
            return DomainState.STOPPED
        case libvirt.VIR_DOMAIN_CRASHED:
            return DomainState.CRASHED
        case _:
            raise ValueError(f"unknown domain state {state}")


def find_domain_state(domain: Any) -> DomainState | None:
    """None when the domain is not defined any more."""
    try:
        state, reason = domain.state()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return read_state(state, reason)


class OurDomains:
    """Remembers handles of our domains and who is not ours, so that a call seldom asks twice.

    A handle is a name for libvirtd, not a state: it costs nothing to keep and may outlive its domain.
    All methods but :meth:`forget` and :meth:`clear` may block.
    """

    def __init__(self) -> None:
        self._ours: dict[UUID, Any] = {}
        self._foreign: set[UUID] = set()

    def remember(self, uuid: UUID, domain: Any) -> None:
        self._foreign.discard(uuid)
        self._ours[uuid] = domain

    def knows(self, uuid: UUID) -> bool:
        """Whether :meth:`find` would answer with a domain, without asking libvirt."""
        return uuid in self._ours

    def forget(self, uuid: UUID) -> None:
        self._ours.pop(uuid, None)
        self._foreign.discard(uuid)

    def clear(self) -> None:
        self._ours.clear()
        self._foreign.clear()

    def find(self, conn: Any, uuid: UUID) -> Any | None:
        """Handle of our domain, or None when it is not defined or not ours."""
        if (known := self._ours.get(uuid)) is not None:
            return known
        try:
            domain = conn.lookupByUUID(uuid.bytes)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return domain if self._is_ours(uuid, domain) else None

    def list_states(self, conn: Any) -> Mapping[UUID, DomainState]:
        """One call for all states, whatever their number."""
        found: dict[UUID, DomainState] = {}
        for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE):
            uuid = UUID(bytes=domain.UUID())
            if self._is_ours(uuid, domain):
                found[uuid] = read_state(stats["state.state"], stats["state.reason"])
        return found

    def _is_ours(self, uuid: UUID, domain: Any) -> bool:
        if uuid in self._ours:
            return True
        if uuid in self._foreign:
            return False
        try:
            domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, XMLNS)
        except libvirt.libvirtError as error:
            match error.get_error_code():
                case libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                    self._foreign.add(uuid)
                    return False
                case libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                case _:
                    raise
        self._ours[uuid] = domain
        return True
