"""Guests' taps on existing bridges: nftables keeps guests honest, and leases are seen as they pass."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

from internal_api.drivers import command
from internal_api.drivers.broadcast import Broadcast
from internal_api.drivers.dhcp_snooper import DhcpSnooper
from internal_api.drivers.nft_listing import TapFilter, read_listing
from internal_api.drivers.nft_ruleset import add_text, elements_of, remove_text, table_text
from internal_api.drivers.protocols import Lease, NicSpec
from terrace.errors import Permanent, Transient

TOOL_TIMEOUT_S = 10.0


class BridgeNetwork:
    """Implements :class:`internal_api.drivers.protocols.Network`.

    Nodes that share a network namespace share a bridge's table; each sees only its own elements, which
    carry ``owner`` (the node's name) as comment. Needs CAP_NET_ADMIN and CAP_NET_RAW.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._filters: dict[str, TapFilter] = {}
        self._tables: set[str] = set()  # bridges whose table this process has loaded
        self._leases: Broadcast[Lease] = Broadcast()
        self._snooper = DhcpSnooper(self._acknowledged)

    async def connect(self) -> None:
        await self._refresh()
        try:
            self._snooper.open()
        except OSError as error:
            raise Transient("service_unavailable", "The node can't watch its network.", internal=str(error)) from error

    async def close(self) -> None:
        self._snooper.close()
        self._leases.close()

    async def ensure_filter(self, nic: NicSpec, ip: str | None) -> None:
        try:
            wanted = TapFilter(nic.bridge, elements_of(nic, ip))
            table = table_text(nic.bridge)
            change = add_text(nic.bridge, wanted.elements, self._owner)
        except ValueError as error:
            raise Permanent("operation_failed", "A network card's data are not valid.", internal=str(error)) from None
        if (before := self._filters.get(nic.tap)) is not None:
            change = remove_text(before.bridge, before.elements - wanted.elements) + change
        if nic.bridge not in self._tables or not await self._load(change):
            # this process has not used the table before, or somebody has flushed it
            if not await self._load(table + change):
                raise Transient("service_unavailable", "The node's packet filter does not work.")
            self._tables.add(nic.bridge)
        self._filters[nic.tap] = wanted

    async def remove_filter(self, nic: NicSpec) -> None:
        if nic.tap not in self._filters:
            return
        before = self._filters[nic.tap]
        if not await self._load(remove_text(before.bridge, before.elements)):
            await self._refresh()
            if nic.tap in self._filters:
                raise Transient("service_unavailable", "The node's packet filter does not work.")
        self._filters.pop(nic.tap, None)

    async def list_filters(self) -> Sequence[str]:
        await self._refresh()
        return sorted(self._filters)

    def leases(self) -> AsyncIterator[Lease]:
        return self._leases.listen()

    async def find_neighbour(self, mac: str, bridge: str) -> str | None:
        done = await command.run("ip", "-4", "-j", "neigh", "show", "dev", bridge, timeout_s=TOOL_TIMEOUT_S)
        if done.status:
            return None
        for row in json.loads(done.stdout or b"[]"):
            if row.get("lladdr") == mac.lower() and "FAILED" not in row.get("state", ()):
                return str(row["dst"])
        return None

    async def _refresh(self) -> None:
        done = await command.run("nft", "-j", "list", "ruleset", "bridge", timeout_s=TOOL_TIMEOUT_S)
        if done.status:
            raise Transient("service_unavailable", "The node's packet filter does not work.", internal=done.stderr)
        self._filters = read_listing(json.loads(done.stdout), self._owner)

    async def _load(self, text: str) -> bool:
        done = await command.run("nft", "-f", "-", stdin=text.encode(), timeout_s=TOOL_TIMEOUT_S)
        return done.status == 0

    def _acknowledged(self, tap: str, lease: Lease) -> None:
        # an acknowledgement may be broadcast, and so reach the taps of others
        known = self._filters.get(tap)
        if known is not None and known.mac == lease.mac:
            self._leases.publish(lease)


class NullNetwork:
    """Implements ``Network`` for a node whose domains have no real cards."""

    def __init__(self) -> None:
        self._leases: Broadcast[Lease] = Broadcast()

    async def connect(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        self._leases.close()

    async def ensure_filter(self, nic: NicSpec, ip: str | None) -> None:
        """There is no tap."""

    async def remove_filter(self, nic: NicSpec) -> None:
        """There is no tap."""

    async def list_filters(self) -> Sequence[str]:
        return ()

    def leases(self) -> AsyncIterator[Lease]:
        return self._leases.listen()

    async def find_neighbour(self, mac: str, bridge: str) -> str | None:
        return None
