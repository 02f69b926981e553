"""Wake-ups, and requests that wait: both survive a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.node_world import seed_cloud
from support.polling import eventually
from support.postgres import Connection, Database

from terrace.db import Listener, Pool
from terrace.engine.waiters import Waiters
from terrace.store import operations
from terrace.store.operations import COLUMNS, Operation


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[Connection]:
    conn = await database.connect()
    await seed_cloud(conn)
    await conn.execute(
        """insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit) values ('hv1', '', 1, 1, 1, 1);
           insert into operations (kind, project_id, vm_id, node, steps, state)
           values ('vm_start', 1, 1, 'hv1', array['x'], 'running')"""
    )
    yield conn
    await conn.close()


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    pool = await database.pool()
    yield pool
    pool.terminate()


@pytest.fixture
async def op(conn: Connection) -> Operation:
    return Operation(*await conn.fetchrow(f"select {COLUMNS} from operations"))


async def end(conn: Connection) -> None:
    await conn.execute("update operations set state = 'succeeded'")


async def test_the_listener_comes_back(database: Database, conn: Connection) -> None:
    heard: list[tuple[str, str | None]] = []
    listener = Listener(database.writer_url, None, ("one", "two"), lambda *event: heard.append(event))
    listener.start()

    async def caught_up() -> bool:
        return heard == [("one", None), ("two", None)]

    await eventually(caught_up)
    await operations.notify(conn, "one", "wake")
    await eventually(lambda: asyncio.sleep(0, ("one", "wake") in heard))
    heard.clear()
    assert await database.terminate_backends("") >= 1
    await eventually(caught_up)
    assert listener.connected
    other = await database.connect()  # the test's own was cut, too
    await operations.notify(other, "two", "again")
    await other.close()
    await eventually(lambda: asyncio.sleep(0, ("two", "again") in heard))
    await listener.stop()


async def test_a_notification_waits_for_its_transaction(database: Database, conn: Connection) -> None:
    heard: list[str | None] = []
    listener = Listener(database.writer_url, None, ("one",), lambda _, payload: heard.append(payload))
    listener.start()
    await eventually(lambda: asyncio.sleep(0, heard == [None]))
    transaction = conn.transaction()
    await transaction.start()
    await operations.notify(conn, "one", "never")
    await transaction.rollback()
    await operations.notify(conn, "one", "now")
    await eventually(lambda: asyncio.sleep(0, len(heard) == 2))
    assert heard == [None, "now"]
    await listener.stop()


async def test_who_waits_is_told(pool: Pool, op: Operation) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as first, waiters.expecting(op.id) as second:
        assert len(waiters) == 1
        op.state = "succeeded"
        waiters.resolve(op)
        assert (await waiters.wait(first, op, 5.0)).state == "succeeded"
        assert (await waiters.wait(second, op, 5.0)).state == "succeeded"
    assert len(waiters) == 0


async def test_an_end_before_the_wait_is_not_missed(pool: Pool, conn: Connection, op: Operation) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as ended:
        await end(conn)
        await waiters.look_up([op.id])
        assert (await waiters.wait(ended, op, 5.0)).state == "succeeded"


async def test_a_lost_notification_is_made_up_for(pool: Pool, conn: Connection, op: Operation) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as ended:
        await end(conn)
        assert (await waiters.wait(ended, op, 10.0)).state == "succeeded"


async def test_a_wait_has_its_time(pool: Pool, op: Operation) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as ended:
        began = asyncio.get_running_loop().time()
        assert (await waiters.wait(ended, op, 0.1)) is op
        assert 0.09 < asyncio.get_running_loop().time() - began < 1.5


async def test_all_are_released_at_once(pool: Pool, op: Operation) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as ended:
        asyncio.get_running_loop().call_later(0.05, waiters.release_all)
        assert (await asyncio.wait_for(waiters.wait(ended, op, 60.0), 5.0)).state == "running"
        assert (await asyncio.wait_for(waiters.wait(ended, op, 60.0), 5.0)).state == "running"


async def test_who_gives_up_leaves_nothing(pool: Pool, op: Operation) -> None:
    waiters = Waiters(pool)

    async def wait() -> None:
        with waiters.expecting(op.id) as ended:
            await waiters.wait(ended, op, 60.0)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(waiters) == 0


async def test_a_database_that_is_away_breaks_no_wait(
    database: Database, pool: Pool, conn: Connection, op: Operation
) -> None:
    waiters = Waiters(pool)
    with waiters.expecting(op.id) as ended:
        waiting = asyncio.create_task(waiters.wait(ended, op, 20.0))
        assert await database.terminate_backends("test") >= 1
        await waiters.look_up()
        await end(conn)
        assert (await waiting).state == "succeeded"
