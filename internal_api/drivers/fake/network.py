"""A network that lives in files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from internal_api.drivers.broadcast import Broadcast
from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.files import ObjectFolder
from internal_api.drivers.protocols import Lease, NicSpec


class FakeNetwork:
    """Implements ``Network``; leases are what a test says with :meth:`give_lease`."""

    def __init__(self, world: Path, faults: Faults | None = None) -> None:
        self.faults = faults or Faults(world / "faults")
        self._filters = ObjectFolder(world / "filters")
        self._leases: Broadcast[Lease] = Broadcast()

    async def connect(self) -> None:
        async with self.faults.around("connect"):
            self._filters.create()

    async def close(self) -> None:
        self._leases.close()

    async def ensure_filter(self, nic: NicSpec, ip: str | None) -> None:
        async with self.faults.around("ensure_filter"):
            self._filters.put(nic.tap, {"mac": nic.mac, "ip": ip})

    async def remove_filter(self, nic: NicSpec) -> None:
        async with self.faults.around("remove_filter"):
            self._filters.remove(nic.tap)

    async def list_filters(self) -> Sequence[str]:
        async with self.faults.around("list_filters"):
            return self._filters.names()

    def leases(self) -> AsyncIterator[Lease]:
        return self._leases.listen()

    async def find_neighbour(self, mac: str, bridge: str) -> str | None:
        async with self.faults.around("find_neighbour"):
            return None

    def give_lease(self, mac: str, ip: str) -> None:
        """As if somebody's DHCP server had acknowledged."""
        self._leases.publish(Lease(mac, ip))
