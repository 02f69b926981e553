"""A whole stack with hypervisors of files: HAProxy, both tiers, PostgreSQL and Redis are real."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from terrace.bootstrap import hash_token, new_token
from terrace.stack import plan, postgres
from terrace.stack.control import Control
from terrace.stack.settings import StackSettings
from terrace.stack.start import Options, up
from terrace.stack.stop import down

CHECKOUT = Path(__file__).resolve().parent.parent.parent
# room for 20 VMs of 1 GiB on each node, and for many small ones
NODE_RAM_MIB = 20 * 1024
_PORTS = 50


@dataclass(frozen=True)
class World:
    """What one node's fake drivers have made, by kind."""

    folder: Path

    def names(self, kind: str) -> list[str]:
        """Names of ``domains``, ``volumes``, ``blobs``, ``images`` or ``retired``."""
        return sorted(path.name for path in (self.folder / kind).iterdir() if not path.name.startswith("."))

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """What the drivers know of one of them."""
        found: dict[str, Any] = json.loads((self.folder / kind / name).read_text())
        return found

    def write(self, kind: str, name: str, value: dict[str, Any]) -> None:
        """Make or change one of them behind the drivers' back."""
        (self.folder / kind / name).write_text(json.dumps(value))

    @contextmanager
    def fault(self, name: str, value: str) -> Iterator[None]:
        """A fault of the drivers while the block runs (see ``internal_api.drivers.fake.faults``)."""
        folder = self.folder / "faults"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(value)
        try:
            yield
        finally:
            (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class FakeStack:
    """A running stack of profile ``fake``."""

    settings: StackSettings
    url: str
    token: str

    @property
    def control(self) -> Control:
        """Orders to its supervisor: kill, stop, start, wait."""
        return Control(self.settings.layout.control_socket)

    @property
    def internal_url(self) -> str:
        """The internal HAProxy."""
        return f"http://127.0.0.1:{self.settings.ports.internal}"

    @property
    def external_urls(self) -> list[str]:
        """Each external node, without HAProxy."""
        return [f"http://127.0.0.1:{self.settings.ports.external_node(i)}" for i in range(self.settings.external_nodes)]

    @property
    def internal_urls(self) -> dict[str, str]:
        """Each internal node by name, without HAProxy."""
        ports = self.settings.ports
        return {n: f"http://127.0.0.1:{ports.internal_node(i)}" for i, n in enumerate(self.settings.hypervisors)}

    @property
    def worlds(self) -> dict[str, World]:
        """What each node has made, by the node's name."""
        return {name: World(self.settings.layout.node(name) / "fake") for name in self.settings.hypervisors}

    @property
    def tier_secret(self) -> bytes:
        """What the external tier signs with."""
        return (self.settings.layout.secrets / "tier_secret").read_text().strip().encode()

    def member_of(self, node: str) -> str:
        """The supervisor's name of a node's process."""
        return f"internal{self.settings.hypervisors.index(node) + 1}"

    def log(self, member: str) -> str:
        """All that a member has logged."""
        return self.settings.layout.log_of(member).read_text(errors="replace")

    async def new_project(self, role: str = "owner") -> str:
        """A token of a project of its own."""
        token = new_token()
        database = await self.connect()
        try:
            await database.execute(
                """with project as (insert into projects (name) values ($1) returning id)
                   insert into tokens (project_id, token_hash, role) select id, $2, $3 from project""",
                f"p-{token[-8:]}", hash_token(token), role,
            )  # fmt: skip
        finally:
            await database.close()
        return token

    @asynccontextmanager
    async def pools_of(self, room_gib: int) -> AsyncIterator[None]:
        """Each node's pool has room for so much, an even number, while the block runs."""
        database = await self.connect()
        try:
            size = await database.fetchval("select max(disk_gib) from pools")
            await database.execute("update pools set disk_gib = $1 / overcommit", room_gib)
            yield
        finally:
            await database.execute("update pools set disk_gib = $1", size)
            await database.close()

    def restart_node(self, node: str, **settings: object) -> None:
        """Start a node anew, with these settings beyond its own; returns when it is ready."""
        member = self.member_of(node)
        more = {f"TERRACE_{name.upper()}": str(value) for name, value in settings.items()}
        members = [
            replace(one, env=one.env | more) if one.name == member else one for one in plan.members(self.settings)
        ]
        self.control.apply(members)
        self.control.wait()

    async def connect(self, role: str = postgres.OWNER) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to its database."""
        password = postgres.password_file(self.settings.layout, role).read_text().strip()
        return await asyncpg.connect(postgres.url(self.settings, role), password=password, timeout=10)


def start(var: Path) -> FakeStack:
    """Start a stack under ``var`` on free ports; returns when it is healthy."""
    settings = StackSettings(
        checkout=CHECKOUT,
        var=var,
        port_base=_free_port_base(),
        profile="fake",
        dns=("9.9.9.9",),
        node_cpu=64,
        node_ram_mib=NODE_RAM_MIB,
        node_disk_gib=50_000,
    )
    endpoint = up(settings, Options(first_vm=False))
    return FakeStack(settings, endpoint.url, endpoint.token)


def stop(stack: FakeStack) -> None:
    """Stop it and remove its data."""
    down(stack.settings, purge=True)


def _free_port_base() -> int:
    first = 20_000 + os.getpid() % 100 * 100
    for base in (*range(first, 30_000, 100), *range(20_000, first, 100)):
        if all(_is_free(port) for port in range(base, base + _PORTS)):
            return base
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
