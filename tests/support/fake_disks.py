"""Disks of the fake stack's guests: what lies in the pools, and what the hypervisors have plugged in."""

from __future__ import annotations

from typing import Any

from support.fake_stack import FakeStack, World

Database = Any  # asyncpg.Connection is generic in its stubs only


class Disk:
    """A disk in its pool, as its guest reads and writes it."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name

    @property
    def facts(self) -> dict[str, Any]:
        """What its pool knows of it."""
        return self._world.read("volumes", self.name)

    @property
    def is_stored(self) -> bool:
        return self.name in self._world.names("volumes")

    @property
    def content(self) -> str:
        return str(self.facts["content"])

    def write(self, content: str) -> None:
        """What a guest does."""
        self._world.write("volumes", self.name, self.facts | {"content": content})

    def forget_snapshots(self) -> None:
        """What no guest can do."""
        self._world.write("volumes", self.name, self.facts | {"snapshots": {}})


async def root_of(stack: FakeStack, database: Database, vm: dict[str, Any]) -> Disk:
    """A VM's system disk."""
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    return Disk(stack.worlds[vm["node"]], f"{uuid}-root")


async def data_of(stack: FakeStack, database: Database, volume: dict[str, Any], node: str = "") -> Disk:
    """A volume, stored or not; one that is bound to no pool yet as it will be on ``node``."""
    uuid = await database.fetchval("select uuid from volumes where id = $1", volume["id"])
    return Disk(stack.worlds[node or volume["node"]], f"{uuid}-data")


async def domain_of(stack: FakeStack, database: Database, vm: dict[str, Any]) -> dict[str, Any]:
    """What the hypervisor knows of a VM."""
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    return stack.worlds[vm["node"]].read("domains", str(uuid))


async def plugged(stack: FakeStack, database: Database, vm: dict[str, Any], half: str = "live") -> set[str]:
    """Names of the disks of a running guest; with ``defined`` of what it has at its next start."""
    disks = (await domain_of(stack, database, vm)).get(half, {}).values()
    return {disk["path"].rpartition("/")[2] for disk in disks}
