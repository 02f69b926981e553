"""Lists by pages: every row once, in order, whatever happens in between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from support.node_world import seed_cloud
from support.postgres import Connection, Database

from terrace.store import operations, snapshots, vms, volumes
from terrace.types import MAX_ID, ProjectId

PROJECT = ProjectId(1)


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[Connection]:
    """Two projects with 60 VMs each, mixed, on a node that lives and one that does not."""
    conn = await database.connect()
    await seed_cloud(conn)
    await conn.execute(
        """insert into projects (name) values ('other');
           insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit, last_seen)
           values ('hv1', '', 100, 1, 100000, 1, now() + interval '1 hour'), ('hv2', '', 1, 1, 1, 1, '2000-01-01');
           insert into pools (name, driver, disk_gib, overcommit) values ('p', 'fake', 1, 1);
           insert into vms (uuid, project_id, name, cpu, ram_mib, disk_gib, image_id, labels, network_id, mac, pool_id,
                            node, desired, status)
           select gen_random_uuid(), 1 + n % 2, 'vm-' || n, 1, 1, 1, 1,
                  case when n % 3 = 0 then jsonb_build_object('env', 'prod') else '{}' end, 1, 'mac' || n, 1,
                  'hv' || 1 + n / 2 % 2, 'running', case when n % 5 = 0 then 'deleting' else 'running' end
             from generate_series(1, 120) n;
           insert into operations (kind, project_id, vm_id, node, steps, state)
           select 'vm_stop', project_id, id, node, array['x'], 'succeeded' from vms, generate_series(1, 3);
           insert into volumes (uuid, project_id, name, size_gib, pool_id, vm_id, slot, status)
           select gen_random_uuid(), project_id, 'volume-' || id || '-' || n, n, nullif(n, 3), nullif(n, 3) * id,
                  nullif(n, 3) + 1, case n when 1 then 'in_use' else 'available' end
             from vms, generate_series(1, 3, 2) n;
           insert into snapshots (uuid, project_id, vm_id, name, status)
           select gen_random_uuid(), project_id, id, 'snapshot-' || n, 'creating' from vms, generate_series(1, 2) n;
           insert into snapshot_disks (snapshot_id, volume_id, size_gib) select id, null, 1 from snapshots"""
    )
    yield conn
    await conn.close()


async def pages(conn: Connection, limit: int) -> list[int]:
    found: list[int] = []
    while page := await vms.list_views(conn, PROJECT, after=found[-1] if found else 0, limit=limit):
        assert len(page) <= limit
        found += [vm.id for vm in page]
    return found


@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61, 1000])
async def test_pages_hold_every_vm_once(conn: Connection, limit: int) -> None:
    expected = [row[0] for row in await conn.fetch("select id from vms where project_id = 1 order by id")]
    assert len(expected) == 60
    assert await pages(conn, limit) == expected


async def test_rows_that_come_and_go_disturb_no_other(conn: Connection) -> None:
    expected = {row[0] for row in await conn.fetch("select id from vms where project_id = 1")}
    seen: list[int] = []
    chance = random.Random(7)
    while page := await vms.list_views(conn, PROJECT, after=seen[-1] if seen else 0, limit=5):
        seen += [vm.id for vm in page]
        victim = chance.choice(sorted(expected))
        await conn.execute("update volumes set vm_id = null, slot = null where vm_id = $1", victim)
        await conn.execute("delete from vms where id = $1", victim)
        expected.discard(victim)
    assert seen == sorted(set(seen))
    assert expected <= set(seen)


async def test_filters_all_hold(conn: Connection) -> None:
    async def ids(**filters: object) -> list[int]:
        return [vm.id for vm in await vms.list_views(conn, PROJECT, after=0, limit=100, **filters)]

    async def rows(where: str) -> list[int]:
        return [row[0] for row in await conn.fetch(f"select id from vms where project_id = 1 and {where} order by id")]

    assert await ids(node="hv1") == await rows("node = 'hv1'")
    assert await ids(labels={"env": "prod"}) == await rows("labels ? 'env'")
    assert await ids(label_keys=["env"]) == await rows("labels ? 'env'")
    assert await ids(labels={"env": "test"}) == []
    assert await ids(node="hv1", labels={"env": "prod"}) == await rows("node = 'hv1' and labels ? 'env'")
    # of a node that is not seen nothing is known, but that a deletion was asked for
    assert await ids(statuses=["running"]) == await rows("status = 'running' and node = 'hv1'")
    assert await ids(statuses=["unknown"]) == await rows("status = 'running' and node = 'hv2'")
    assert await ids(statuses=["deleting"]) == await rows("status = 'deleting'")
    assert await ids(statuses=["running", "unknown"]) == await rows("status = 'running'")
    for vm in await vms.list_views(conn, PROJECT, after=0, limit=100):
        assert vm.id in await ids(statuses=[vm.status])


async def test_operations_come_newest_first(conn: Connection) -> None:
    found: list[int] = []
    while page := await operations.list_of_project(conn, PROJECT, before=found[-1] if found else MAX_ID, limit=17):
        found += [op.id for op in page]
    rows = await conn.fetch("select id from operations where project_id = 1 order by id desc")
    assert found == [row[0] for row in rows]
    vm_id = await conn.fetchval("select min(id) from vms where project_id = 1")
    of_vm = await operations.list_of_project(conn, PROJECT, before=MAX_ID, limit=17, vm_id=vm_id)
    assert {op.vm_id for op in of_vm} == {vm_id}
    assert len(of_vm) == 3
    assert await operations.list_of_project(conn, PROJECT, before=MAX_ID, limit=17, state="failed") == []


async def test_another_project_sees_nothing(conn: Connection) -> None:
    foreign = await conn.fetchrow("select id, name from vms where project_id = 2 limit 1")
    for ref in foreign:
        assert await vms.find_view(conn, PROJECT, ref) is None
        assert await vms.find_id(conn, PROJECT, ref) is None
        assert await vms.lock(conn, PROJECT, ref) is None
    op_id = await conn.fetchval("select min(id) from operations where project_id = 2")
    assert await operations.find(conn, PROJECT, op_id) is None


async def test_volumes_come_in_pages_and_filters_hold(conn: Connection) -> None:
    async def rows(where: str = "true") -> list[int]:
        found = await conn.fetch(f"select id from volumes where project_id = 1 and {where} order by id")
        return [row[0] for row in found]

    async def ids(limit: int, **filters: object) -> list[int]:
        seen: list[int] = []
        while page := await volumes.list_views(conn, PROJECT, after=seen[-1] if seen else 0, limit=limit, **filters):
            seen += [volume.id for volume in page]
        return seen

    assert len(await rows()) == 120
    for limit in (1, 7, 119, 120, 121):
        assert await ids(limit) == await rows()
    vm_id = await conn.fetchval("select min(id) from vms where project_id = 1")
    assert await ids(7, status="available") == await rows("status = 'available'")
    assert await ids(7, vm_id=vm_id) == await rows(f"vm_id = {vm_id}") != []
    assert await ids(7, vm_id=vm_id, status="available") == await ids(7, status="error") == []
    assert await ids(7, vm_id=MAX_ID) == []


async def test_snapshots_come_in_pages_of_one_vm_or_all(conn: Connection) -> None:
    expected = [row[0] for row in await conn.fetch("select id from snapshots where project_id = 1 order by id")]
    assert len(expected) == 120
    for limit in (1, 7, 119, 120, 121):
        seen: list[int] = []
        while page := await snapshots.list_views(conn, PROJECT, after=seen[-1] if seen else 0, limit=limit):
            seen += [snapshot.id for snapshot in page]
        assert seen == expected
    vm_id = await conn.fetchval("select min(id) from vms where project_id = 1")
    of_vm = await snapshots.list_views(conn, PROJECT, after=0, limit=9, vm_id=vm_id)
    assert [(one.vm_id, one.name) for one in of_vm] == [(vm_id, "snapshot-1"), (vm_id, "snapshot-2")]
    assert [list(one.disks) for one in of_vm] == [[{"volume": None, "size_gib": 1}]] * 2


async def test_another_project_sees_no_volume_and_no_snapshot(conn: Connection) -> None:
    foreign = await conn.fetchrow("select id, name from volumes where project_id = 2 limit 1")
    for ref in foreign:
        assert await volumes.find_view(conn, PROJECT, ref) is None
        assert await volumes.find(conn, PROJECT, ref) is None
        assert await volumes.find_node(conn, PROJECT, ref) is None
    vm_id = await conn.fetchval("select min(id) from vms where project_id = 2")
    assert await volumes.list_views(conn, PROJECT, after=0, limit=9, vm_id=vm_id) == []
    assert await snapshots.list_views(conn, PROJECT, after=0, limit=9, vm_id=vm_id) == []
