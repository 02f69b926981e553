"""What the watchers may write, and when an operation's word counts more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.node_world import seed_cloud
from support.postgres import Connection, Database

from terrace.store import vms
from terrace.types import OperationId, VmId

VM = VmId(1)


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[Connection]:
    """One running VM, whose newest operation has ended."""
    conn = await database.connect()
    await seed_cloud(conn)
    await conn.execute(
        """insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit) values ('hv1', '', 1, 1, 1, 1);
           insert into pools (name, driver, disk_gib, overcommit) values ('p', 'fake', 1, 1);
           insert into vms (uuid, project_id, name, cpu, ram_mib, disk_gib, image_id, network_id, mac, pool_id, node,
                            desired, status, operation_id, ready_at)
           values (gen_random_uuid(), 1, 'vm', 1, 1, 1, 1, 1, 'mac', 1, 'hv1', 'running', 'running', 1, now());
           insert into operations (kind, project_id, vm_id, node, steps, state)
           values ('vm_start', 1, 1, 'hv1', array['x'], 'succeeded')"""
    )
    yield conn
    await conn.close()


async def test_a_guest_that_went_off(conn: Connection) -> None:
    assert await vms.observe(conn, VM, "hv1", "stopped", desired="stopped", since=OperationId(1))
    assert tuple(await conn.fetchrow("select status, desired, ready_at from vms")) == ("stopped", "stopped", None)
    assert not await vms.observe(conn, VM, "hv1", "stopped", desired="stopped"), "that is known"


@pytest.mark.parametrize(
    "change",
    [
        "update vms set node = 'hv2'",
        "update vms set status = 'deleting'",
        "update vms set status = 'error'",
        "update operations set state = 'pending'",
        "update vms set operation_id = 2",
    ],
)
async def test_others_know_better(conn: Connection, change: str) -> None:
    await conn.execute(
        "insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit) values ('hv2', '', 1, 1, 1, 1)"
    )
    await conn.execute(change)
    assert not await vms.observe(conn, VM, "hv1", "stopped", since=OperationId(1))


@pytest.mark.parametrize("state", ["pending", "running", "undoing"])
@pytest.mark.parametrize(
    ("kind", "counts_more"),
    [
        ("vm_create", True),
        ("vm_start", True),
        ("vm_stop", True),
        ("vm_delete", True),
        ("snapshot_restore", True),
        ("snapshot_create", False),
        ("snapshot_delete", False),
        ("volume_attach", False),
        ("volume_detach", False),
        ("volume_resize", False),
        ("image_capture", False),
    ],
)
async def test_which_live_operations_count_more(conn: Connection, kind: str, counts_more: bool, state: str) -> None:
    await conn.execute("update operations set kind = $1, state = $2", kind, state)
    assert vms.settles_power(kind) is counts_more
    assert await vms.observe(conn, VM, "hv1", "stopped", desired="stopped", since=OperationId(1)) is not counts_more
    assert await conn.fetchval("select desired from vms") == ("running" if counts_more else "stopped")


async def test_ready_only_once_and_only_while_running(conn: Connection) -> None:
    assert not await vms.set_ready(conn, VM, "hv1")
    await conn.execute("update vms set ready_at = null, status = 'stopped'")
    assert not await vms.set_ready(conn, VM, "hv1")
    await conn.execute("update vms set status = 'running'")
    assert await vms.set_ready(conn, VM, "hv1")
    assert not await vms.set_ready(conn, VM, "hv1")
