"""Hot queries at 50,000 VMs: each finds its rows by an index, and looks at few of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from support.node_world import seed_cloud
from support.postgres import Cluster, Connection, Database

from terrace.db import prepare_connection
from terrace.migrate import READER, WRITER
from terrace.store import idempotency, operations, snapshots, vms, volumes
from terrace.types import OperationId, ProjectId, SnapshotId, VmId, VolumeId

VMS = 50_000
PROJECT = ProjectId(1)
_BIG = (
    *("vms", "operations", "operation_events", "addresses", "idempotency_keys"),
    *("volumes", "snapshots", "snapshot_disks"),
)

_FILL = f"""
set session_replication_role = replica;  -- no foreign keys are checked one by one
insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit, incarnation, last_seen)
select 'hv' || n, '', 1000, 4, 1000000, 1, 1, now() + interval '1 day' from generate_series(1, 20) n;
insert into pools (name, driver, node, disk_gib, overcommit) select name, 'fake', name, 1000000, 2 from nodes;
update nodes n set pool_id = p.id from pools p where p.node = n.name;
insert into addresses (subnet_id, ip, vm_id)
select 1, inet '10.64.0.0' + n, case when n <= {VMS} then n end from generate_series(1, {VMS} + 15000) n;
insert into vms (uuid, project_id, name, cpu, ram_mib, disk_gib, image_id, labels, network_id, mac, ip, pool_id, node,
                 desired, status, operation_id)
select gen_random_uuid(), 1, 'vm-' || n, 1, 512, 10, 1,
       jsonb_build_object('env', case when n % 2 = 0 then 'prod' else 'test' end, 'team', 't' || n % 500), 1,
       'mac-' || n, inet '10.64.0.0' + n, 1, 'hv' || 1 + n % 20, 'running', 'running', n
  from generate_series(1, {VMS}) n;
insert into operations (kind, project_id, vm_id, vm_name, node, steps, state, finished_at)
select 'vm_create', 1, 1 + n % {VMS}, 'vm', 'hv1', array['claim', 'image'], 'succeeded', now()
  from generate_series(1, 2 * {VMS}) n;
insert into operations (kind, project_id, vm_id, vm_name, node, steps, state)
select 'vm_stop', 1, v.id, v.name, v.node, array['shutdown'], 'running' from vms v where v.id % 1000 = 0;
insert into operation_events (operation_id, step, phase, ok, attempt, started_at, duration_ms)
select id, 'claim', 'do', true, 1, now(), 1 from operations;
insert into idempotency_keys (project_id, route, key, body_hash, operation_id, expires_at)
select 1, 'POST /vms', 'key-' || n, '', n, now() + interval '1 day' from generate_series(1, {VMS}) n;
insert into volumes (uuid, project_id, name, size_gib, pool_id, vm_id, slot, status, operation_id)
select gen_random_uuid(), 1, 'volume-' || n, 1, 1, case when n % 2 = 0 then n end, case when n % 2 = 0 then 2 end,
       case when n % 2 = 0 then 'in_use' else 'available' end, n
  from generate_series(1, {VMS}) n;
insert into snapshots (uuid, project_id, vm_id, name, status, consistency)
select gen_random_uuid(), 1, 1 + n % ({VMS} / 5), 'snapshot-' || n, 'available', 'crash'
  from generate_series(1, {VMS}) n;
insert into snapshot_disks (snapshot_id, volume_id, size_gib)
select s.id, x.volume_id, 10 from snapshots s cross join lateral (values (null), (1 + s.id % {VMS})) x(volume_id);
insert into operations (kind, project_id, volume_id, node, steps, state)
select 'volume_resize', 1, id, 'hv9', array['claim', 'grow'], 'running' from volumes where id % 1000 = 1;
set session_replication_role = origin;
"""

_filled: list[Database] = []


@pytest.fixture
async def crowded(cluster: Cluster) -> Database:
    """A database with 50,000 VMs; it is filled once and only read."""
    if not _filled:
        _filled.append(await cluster.create_here())
        conn = await _filled[0].connect()
        await seed_cloud(conn)
        await conn.execute(_FILL)
        await conn.execute("vacuum analyze")
        await conn.close()
    return _filled[0]


class Explained:
    """A connection that explains what is run through it, and runs it."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.plans: list[str] = []

    async def fetch(self, query: str, *args: Any) -> Any:
        async with self.rolled_back():
            plan = await self._conn.fetch(f"explain (analyze, costs off, timing off, summary off) {query}", *args)
        self.plans.append("\n".join(row[0] for row in plan))
        return await self._conn.fetch(query, *args)

    @asynccontextmanager
    async def rolled_back(self) -> AsyncIterator[None]:
        """A transaction, or a savepoint in one, of which nothing stays."""
        transaction = self._conn.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    async def fetchrow(self, query: str, *args: Any) -> Any:
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any) -> Any:
        row = await self.fetchrow(query, *args)
        return row[0] if row else None


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
async def explained(request: pytest.FixtureRequest, crowded: Database) -> AsyncIterator[Explained]:
    """As a first execution plans it, and as a connection's prepared statements do later."""
    conn = await crowded.connect(WRITER)
    await conn.execute(f"set plan_cache_mode = {request.param}")
    yield Explained(conn)
    await conn.close()


Query = Callable[[Any], Awaitable[Any]]


def deep(conn: Any) -> Awaitable[Any]:
    return vms.list_views(conn, PROJECT, after=VMS - 500, limit=101)


def labelled(**labels: str) -> Query:
    return lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101, labels=labels)


QUERIES: dict[str, tuple[Query, int, int]] = {  # query, rows that it finds, rows that it may look at
    "first page": (lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101), 101, 120),
    "deep page": (deep, 101, 120),
    "by node": (lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101, node="hv7"), 101, 3000),
    "by common label": (
        lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101, labels={"env": "prod"}),
        101,
        300,
    ),
    "by rare label": (lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101, labels={"team": "t42"}), 100, VMS),
    "by status": (lambda conn: vms.list_views(conn, PROJECT, after=0, limit=101, statuses=["running"]), 101, 120),
    "by id": (lambda conn: vms.find_view(conn, PROJECT, 25_000), 1, 3),
    "by name": (lambda conn: vms.find_view(conn, PROJECT, "vm-25000"), 1, 3),
    "owner": (lambda conn: vms.find_id(conn, PROJECT, "vm-25000"), 1, 3),
    "by domain": (lambda conn: vms.find(conn, VmId(25_000)), 1, 3),
    "locked": (lambda conn: vms.lock(conn, PROJECT, 25_000), 1, 3),
    "of a node": (lambda conn: vms.list_of_node(conn, "hv7"), VMS // 20, VMS // 20 + 1),
    "live of a node": (lambda conn: operations.list_live(conn, "hv1", 1, [1, 2, 3], 64), 50, 60),
    "live of a VM": (lambda conn: operations.find_live_of_vm(conn, VmId(25_000)), 1, 3),
    "ended": (lambda conn: operations.list_ended(conn, [1, 2, 3]), 3, 5),
    "operation": (lambda conn: operations.find(conn, PROJECT, 25_000), 1, 3),
    "to carry out": (lambda conn: operations.find_live(conn, OperationId(100_001), 1), 1, 3),
    "operations": (lambda conn: operations.list_of_project(conn, PROJECT, before=2**63 - 1, limit=101), 101, 120),
    "operations of a VM": (
        lambda conn: operations.list_of_project(conn, PROJECT, before=2**63 - 1, limit=101, vm_id=25_000),
        3,
        5,
    ),
    "events": (lambda conn: operations.list_events(conn, [1, 2, 3]), 3, 5),
    "volumes": (lambda conn: volumes.list_views(conn, PROJECT, after=0, limit=101), 101, 120),
    "volumes, a deep page": (lambda conn: volumes.list_views(conn, PROJECT, after=VMS - 500, limit=101), 101, 120),
    "volumes of a VM": (lambda conn: volumes.list_views(conn, PROJECT, after=0, limit=101, vm_id=25_000), 1, 5),
    "volumes by status": (
        lambda conn: volumes.list_views(conn, PROJECT, after=0, limit=101, status="available"),
        101,
        300,
    ),
    "volume by id": (lambda conn: volumes.find_view(conn, PROJECT, 25_000), 1, 5),
    "volume by name": (lambda conn: volumes.find(conn, PROJECT, "volume-25000"), 1, 3),
    "volume, locked": (lambda conn: volumes.lock(conn, VolumeId(25_000)), 1, 3),
    "node of a volume": (lambda conn: volumes.find_node(conn, PROJECT, "volume-25000"), 1, 5),
    "free slot": (lambda conn: volumes.find_free_slot(conn, VmId(25_000)), 1, 10),
    "live of a volume": (lambda conn: operations.find_live_of_volume(conn, VolumeId(24_001)), 1, 3),
    "snapshots": (lambda conn: snapshots.list_views(conn, PROJECT, after=0, limit=101), 101, 120),
    "snapshots, a deep page": (lambda conn: snapshots.list_views(conn, PROJECT, after=VMS - 500, limit=101), 101, 120),
    "snapshots of a VM": (
        lambda conn: snapshots.list_views(conn, PROJECT, after=0, limit=101, vm_id=VmId(500)),
        5,
        20,
    ),
    "snapshot by id": (lambda conn: snapshots.find_view(conn, VmId(500), 499), 1, 5),
    "snapshot by name": (lambda conn: snapshots.lock(conn, VmId(500), "snapshot-499"), 1, 5),
    "snapshot alone": (lambda conn: snapshots.find_by_id(conn, SnapshotId(25_000)), 1, 5),
    "snapshots to remove": (lambda conn: snapshots.list_of_vm(conn, VmId(500)), 5, 10),
    "snapshots with a volume": (lambda conn: snapshots.list_names_with_volume(conn, VolumeId(25_000)), 1, 5),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_hot_queries_use_indexes(explained: Explained, name: str) -> None:
    query, finds, looks_at = QUERIES[name]
    found = await query(explained)
    assert (len(found) if isinstance(found, list | dict) else 1) == finds
    check(explained.plans, looks_at)


async def test_a_free_address_is_found_at_once(explained: Explained) -> None:
    """What :func:`terrace.store.vms.insert_with_address` does first."""
    query = vms._INSERT.split("and (subnet_id, ip) = (")[1].split(")\n")[0].replace("$17", "$1")
    found = await explained.fetch(query, 1)
    assert len(found) == 1
    check(explained.plans, 2)


async def test_a_free_address_is_found_at_once_after_many_claims(crowded: Database) -> None:
    """Rows that were free a moment ago leave traces in the index."""
    conn = await crowded.connect()
    async with conn.transaction():
        await conn.execute(
            "update addresses set vm_id = 1 where ip in (select ip from addresses where vm_id is null limit 10000)"
        )
        explained = Explained(conn)
        query = vms._INSERT.split("and (subnet_id, ip) = (")[1].split(")\n")[0].replace("$17", "$1")
        plan = await conn.fetch(f"explain (analyze, costs off, timing off, summary off) {query}", 1)
        check(["\n".join(row[0] for row in plan)], 2)
        assert explained.plans == []
    await conn.close()


async def test_saving_a_step_touches_one_row(explained: Explained) -> None:
    async with explained.rolled_back():
        op = await operations.find_live(explained, OperationId(100_001), 1)
        assert op is not None
        event = operations.Event("shutdown", "do", True, 1, op.created_at, 1.0)
        op.state = "failed"
        assert await operations.save(explained, op, 1, event, vm_status="stopped")
    check(explained.plans, 10)


async def test_a_repeated_key_is_found_at_once(explained: Explained) -> None:
    key = idempotency.Key(PROJECT, "POST /vms", "key-500", b"")
    earlier = await idempotency.take(explained, key)
    assert earlier is not None
    check(explained.plans, 5)


async def test_the_reader_uses_them_too(crowded: Database) -> None:
    conn = await asyncpg.connect(crowded.url(READER))
    await prepare_connection(conn)
    explained = Explained(conn)
    await deep(explained)
    check(explained.plans, 120)
    await conn.close()


def check(plans: list[str], looks_at: int) -> None:
    """No big table is read from end to end, and no more rows are fetched or thrown away than that."""
    for plan in plans:
        for table in _BIG:
            assert not re.search(rf"Seq Scan on {table}\b", plan), plan
        seen = sum(int(number) for number in re.findall(r"Index.*rows=(\d+) loops=1\)", plan))
        dropped = sum(int(number) for number in re.findall(r"Rows Removed by (?:Filter|Index Recheck): (\d+)", plan))
        assert seen + dropped <= max(looks_at, 10) * 2, plan
