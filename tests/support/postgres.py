"""A private PostgreSQL cluster for a test run, and a database for each test.

The cluster listens on a unix socket in its own directory only, trusts whoever reaches that, and does
not care for its disk. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import asyncpg
import pytest

from terrace.db import Pool, create_pool, prepare_connection
from terrace.migrate import READER, WRITER, migrate
from terrace.stack import commands
from terrace.stack.layout import Layout
from terrace.stack.postgres import OWNER, as_ordinary_user, binaries

T = TypeVar("T")
Connection = asyncpg.Connection

_TEMPLATE = "terrace_template"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_min_messages": "fatal",
}


@dataclass(frozen=True, slots=True)
class Database:
    """One database of the cluster."""

    sockets: Path  # the cluster's directory
    name: str

    def url(self, role: str = OWNER, database: str | None = None) -> str:
        """Where a role connects to."""
        return f"postgresql://{role}@/{database or self.name}?host={quote(str(self.sockets), safe='')}"

    @property
    def writer_url(self) -> str:
        return self.url(WRITER)

    @property
    def reader_url(self) -> str:
        return self.url(READER)

    async def connect(self, role: str = OWNER) -> Connection:
        """A connection that speaks as Terrace's own do."""
        conn = await asyncpg.connect(self.url(role))
        await prepare_connection(conn)
        return conn

    async def pool(self, role: str = WRITER, *, size: int = 10, name: str = "test") -> Pool:
        """A pool as the services make it."""
        return await create_pool(self.url(role), None, name=name, size=size, timeout_s=10.0)

    async def empty(self) -> None:
        """Make it as good as new: quicker than a new one where hundreds are wanted."""
        conn = await asyncpg.connect(self.url())
        try:
            # truncate would make every file anew
            statements = await conn.fetchval(
                """select string_agg(format('delete from %I', tablename), '; ') from pg_tables
                    where schemaname = 'public' and tablename not in ('schema_migrations', 'cloud')"""
            )
            await conn.execute(f"set session_replication_role = replica; {statements}")
            await conn.execute("select setval(seqrelid, seqstart, false) from pg_sequence")
        finally:
            await conn.close()

    async def terminate_backends(self, application: str = "%") -> int:
        """Cut connections by application name, as a restart of the server does; returns how many."""
        conn = await asyncpg.connect(self.url(database="postgres"))
        try:
            return int(
                await conn.fetchval(
                    """select count(pg_terminate_backend(pid)) from pg_stat_activity
                        where datname = $1 and application_name like $2""",
                    self.name,
                    application,
                )
            )
        finally:
            await conn.close()


class Cluster:
    """A running server in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._serial = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._prefix = as_ordinary_user(Layout(folder))

    def make(self) -> None:
        """Initialise, start, and migrate the template database."""
        if self._prefix and self._prefix[0] == "setpriv":
            shutil.chown(self.folder, "postgres")
        data = str(self.folder / "data")
        initdb = (str(binaries() / "initdb"), "--pgdata", data, "--username", OWNER)
        commands.run(*self._prefix, *initdb, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()
        asyncio.run(self._make_template())

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        server = (str(binaries() / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder))
        # the last word of a test run that is killed: its server goes with it
        guard = ("setpriv", "--pdeathsig", "QUIT", "--")
        self._server = subprocess.Popen(
            [*self._prefix, *guard, *server, *settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        ready = (str(binaries() / "pg_isready"), "-q", "-t", "1", "-h", str(self.folder))
        for _ in range(200):
            if commands.succeeds(*ready):
                return
            if self._server.poll() is not None:
                break
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the server at once."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(10)
            self._server = None

    def restart(self) -> None:
        """Cut all connections and come back, as after a crash."""
        self.stop()
        self.start()

    def create(self) -> Database:
        """A migrated, otherwise empty database."""
        return asyncio.run(self.create_here())

    async def create_here(self) -> Database:
        """The same, in a loop that runs."""
        name = f"test_{next(self._serial)}"
        await self._execute(f"create database {name} template {_TEMPLATE} strategy file_copy")
        return Database(self.folder, name)

    def drop(self, database: Database) -> None:
        asyncio.run(self._execute(f"drop database {database.name} with (force)"))

    async def _execute(self, statement: str) -> None:
        await self._with("postgres", lambda conn: conn.execute(statement))

    async def _make_template(self) -> None:
        await self._execute(f"create database {_TEMPLATE}")
        await self._with(_TEMPLATE, lambda conn: migrate(conn, "reader", "writer"))

    async def _with(self, database: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        conn = await asyncpg.connect(Database(self.folder, database).url())
        try:
            return await work(conn)
        finally:
            await conn.close()


@functools.cache
def shared_cluster() -> Cluster:
    """The one cluster of this process, started when it is first wanted."""
    # unix(7) allows 107 characters, fewer than pytest's directories have
    folder = Path(tempfile.mkdtemp(prefix="terrace-test-pg-"))
    cluster = Cluster(folder)

    def end() -> None:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    cluster.make()
    return cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, before a loop runs."""
    return shared_cluster()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A migrated database of the test's own."""
    made = cluster.create()
    yield made
    cluster.drop(made)


@functools.cache
def _reused() -> Database:
    return shared_cluster().create()


@pytest.fixture
def emptied_database() -> Database:
    """The same database for every test that asks for it, emptied."""
    asyncio.run(_reused().empty())
    return _reused()
