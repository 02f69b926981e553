"""Calls on one domain of ours, in its lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

import libvirt

from internal_api.drivers.libvirt_connection import CALL_TIMEOUT_S, LibvirtConnection
from internal_api.drivers.libvirt_domains import OurDomains
from terrace.errors import Permanent

T = TypeVar("T")


class DomainCalls:
    """Calls in one lane of a domain follow each other; ``lane=None`` waits for nobody.

    Lanes keep a guest agent that lets its caller wait from holding up a power off.
    """

    def __init__(self, connection: LibvirtConnection, domains: OurDomains) -> None:
        self._connection = connection
        self._domains = domains

    async def on_existing(
        self,
        domain: UUID,
        fn: Callable[[Any], T],
        *,
        lane: str | None = "change",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T | None:
        """``fn`` with our domain's handle, or None when there is none."""

        def run(conn: Any) -> T | None:
            handle = self._domains.find(conn, domain)
            try:
                return None if handle is None else fn(handle)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:  # handles may outlive their domains
                    return None
                raise

        key = None if lane is None else f"{lane} {domain}"
        return await self._connection.call(run, key=key, timeout_s=timeout_s)

    async def on(self, domain: UUID, fn: Callable[[Any], T], *, timeout_s: float = CALL_TIMEOUT_S) -> T:
        """``fn`` with our domain's handle; raises Permanent when there is none."""
        found = await self.on_existing(domain, lambda handle: (fn(handle),), timeout_s=timeout_s)
        if found is None:
            raise Permanent("operation_failed", "The VM's domain is missing on its node.", internal=f"domain {domain}")
        return found[0]
