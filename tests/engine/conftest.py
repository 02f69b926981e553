"""What the engine's tests share: a database of their own, and a bench for each kind of operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_bench import IMAGE, FakeBench, MakeBench
from support.postgres import Cluster, Database, cluster, database, emptied_database

from terrace.engine.testing import World

__all__ = ["cluster", "database", "emptied_database"]


@pytest.fixture
async def image_url() -> AsyncIterator[str]:
    """A URL from which an image can be imported, also by another process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(IMAGE), IMAGE))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/image"


@asynccontextmanager
async def opened(bench: FakeBench) -> AsyncIterator[FakeBench]:
    """A bench that is ready."""
    try:
        await bench.open()
        await bench.prepare()
        yield bench
    finally:
        await bench.close()


@pytest.fixture
async def bench(kind: str, emptied_database: Database, tmp_path: Path, image_url: str) -> AsyncIterator[FakeBench]:
    """A bench for the test's ``kind`` of operation."""
    async with opened(FakeBench(kind, emptied_database, tmp_path, image_url)) as ready:
        yield ready


_undisturbed: dict[str, tuple[World, World]] = {}


@pytest.fixture
async def worlds(
    kind: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, image_url: str
) -> tuple[World, World]:
    """The worlds before and after an undisturbed operation of the test's ``kind``; each is made once."""
    if kind not in _undisturbed:
        database = await cluster.create_here()
        async with opened(FakeBench(kind, database, tmp_path_factory.mktemp("calm"), image_url)) as bench:
            before = await bench.world()
            assert (await bench.run()).state == "succeeded"
            _undisturbed[kind] = (before, await bench.world())
    return _undisturbed[kind]


@pytest.fixture
async def make_bench(database: Database, tmp_path: Path) -> AsyncIterator[MakeBench]:
    """A bench with settings of the test's choice."""
    made: list[FakeBench] = []

    async def make(kind: str, **more: Any) -> FakeBench:
        bench = FakeBench(kind, database, tmp_path, "", **more)
        made.append(bench)
        await bench.open()
        await bench.prepare()
        return bench

    yield make
    for bench in made:
        await bench.close()
