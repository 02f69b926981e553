"""What a node asks of the host side of its network cards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from internal_api.drivers.protocols.domain import NicSpec


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that somebody's DHCP server gave to one of our network cards."""

    mac: str
    ip: str


class Network(Protocol):
    """Host side of network cards: what may pass a tap, and which addresses appear behind it."""

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def ensure_filter(self, nic: NicSpec, ip: str | None) -> None:
        """Let only this MAC (and this IPv4 address, unless None: then any, as DHCP decides) pass the tap.

        To be called before the tap exists.
        """
        ...

    async def remove_filter(self, nic: NicSpec) -> None: ...

    async def list_filters(self) -> Sequence[str]:
        """Names of this node's taps that have a filter."""
        ...

    def leases(self) -> AsyncIterator[Lease]:
        """DHCP acknowledgements seen on the host's taps from now on."""
        ...

    async def find_neighbour(self, mac: str, bridge: str) -> str | None:
        """IPv4 address of a MAC in the host's neighbour table of that bridge."""
        ...
