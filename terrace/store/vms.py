"""Table ``vms``: what the platform promises of each VM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from terrace.db import Conn
from terrace.errors import Conflict
from terrace.types import ImageId, NetworkId, OperationId, PoolId, ProjectId, VmId, VolumeId


@dataclass(frozen=True, slots=True)
class VmView:
    """A VM as its users see it."""

    id: VmId
    name: str
    status: str
    cpu: int
    ram_mib: int
    disk_gib: int
    image: str
    network: str
    ip: str | None
    node: str
    labels: Mapping[str, str]
    created_at: datetime
    started_at: datetime | None
    ready_at: datetime | None
    operation_id: OperationId | None
    error: Mapping[str, Any] | None
    volumes: Sequence[Mapping[str, Any]]  # id, name and size_gib of each, in the order of their slots


@dataclass(frozen=True, slots=True)
class VmVolume:
    """A volume that is plugged into a VM, or is to be."""

    id: VolumeId
    uuid: UUID
    size_gib: int
    slot: int
    delete_with_vm: bool
    status: str


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM as its owner works on it."""

    id: VmId
    uuid: UUID
    project_id: ProjectId
    name: str
    cpu: int
    ram_mib: int
    disk_gib: int
    image_id: ImageId
    image_sha256: str
    image_format: str
    ssh_keys: Sequence[str]
    password_hash: str | None
    files: Sequence[Mapping[str, str]]
    user_data: str | None
    network_id: NetworkId
    bridge: str
    dhcp: str
    cidr: str | None
    gateway: str | None
    dns: Sequence[str]
    mac: str
    ip: str | None
    pool_id: PoolId
    node: str
    epoch: int
    desired: str
    status: str
    volumes: Sequence[VmVolume]


@dataclass(frozen=True, slots=True)
class OwnedVm:
    """What a node compares with its domains."""

    id: VmId
    uuid: UUID
    project_id: ProjectId
    name: str
    desired: str
    status: str
    operation_id: OperationId | None


@dataclass(frozen=True, slots=True)
class NewVm:
    """What a claim inserts."""

    uuid: UUID
    project_id: ProjectId
    name: str
    cpu: int
    ram_mib: int
    disk_gib: int
    image_id: ImageId
    ssh_keys: Sequence[str]
    password_hash: str | None
    files: Sequence[Mapping[str, str]]
    user_data: str | None
    labels: Mapping[str, str]
    network_id: NetworkId
    mac: str
    pool_id: PoolId
    node: str


# A node not seen for 15 s is down, and nothing certain is known of its VMs.
_LOST = "(n.last_seen < now() - interval '15 s' and v.status <> 'deleting')"
_STATUS = f"case when {_LOST} then 'unknown' else v.status end"
# The same as a filter, said so that the planner can tell how many rows it lets through.
_HAS_STATUS = f"(v.status = any(${{0}}) and not {_LOST} or 'unknown' = any(${{0}}) and {_LOST})"

# Few VMs have volumes: to look for one costs less than to aggregate none (and `exists` might be hashed over all).
_VIEW = f"""select v.id, v.name, {_STATUS} as status, v.cpu, v.ram_mib, v.disk_gib, i.name as image,
       w.name as network, v.ip, v.node, v.labels, v.created_at, v.started_at, v.ready_at, v.operation_id, v.error,
       case when (select true from volumes x where x.vm_id = v.id limit 1) then
           (select jsonb_agg(jsonb_build_object('id', x.id, 'name', x.name, 'size_gib', x.size_gib) order by x.slot)
              from volumes x where x.vm_id = v.id)
       else '[]' end as volumes
  from vms v
  join nodes n on n.name = v.node
  join images i on i.id = v.image_id
  join networks w on w.id = v.network_id"""

_WORK = """select v.id, v.uuid, v.project_id, v.name, v.cpu, v.ram_mib, v.disk_gib, v.image_id, i.sha256, i.format,
       v.ssh_keys, v.password_hash, v.files, v.user_data, v.network_id, w.bridge, w.dhcp,
       s.cidr, s.gateway, coalesce(s.dns, '{}'), v.mac, v.ip, v.pool_id, v.node, v.epoch, v.desired, v.status,
       (select coalesce(jsonb_agg(jsonb_build_array(x.id, x.uuid, x.size_gib, x.slot, x.delete_with_vm, x.status)
                                  order by x.slot), '[]') from volumes x where x.vm_id = v.id) as volumes
  from vms v
  join images i on i.id = v.image_id
  join networks w on w.id = v.network_id
  left join subnets s on s.network_id = w.id"""


def _vm(row: asyncpg.Record) -> Vm:
    values: list[Any] = list(row)
    values[-1] = [VmVolume(found[0], UUID(found[1]), *found[2:]) for found in values[-1]]
    return Vm(*values)


async def find_view(conn: Conn, project_id: ProjectId, ref: int | str) -> VmView | None:
    """One VM of a project by id or name."""
    column = "v.id" if isinstance(ref, int) else "v.name"
    row = await conn.fetchrow(f"{_VIEW} where v.project_id = $1 and {column} = $2", project_id, ref)
    return VmView(*row) if row else None


async def list_views(
    conn: Conn,
    project_id: ProjectId,
    *,
    after: int,
    limit: int,
    statuses: Sequence[str] = (),
    node: str | None = None,
    labels: Mapping[str, str] | None = None,
    label_keys: Sequence[str] = (),
) -> list[VmView]:
    """A project's VMs by ascending id, from behind ``after``; every filter given must hold."""
    where = ["v.project_id = $1", "v.id > $2"]
    args: list[Any] = [project_id, after]
    for clause, value in (
        (_HAS_STATUS, list(statuses)),
        ("v.node = ${}", node),
        ("v.labels @> ${}", labels),
        ("v.labels ?& ${}", list(label_keys)),
    ):
        if value:
            args.append(value)
            where.append(clause.format(len(args)))
    args.append(limit)
    rows = await conn.fetch(f"{_VIEW} where {' and '.join(where)} order by v.id limit ${len(args)}", *args)
    return [VmView(*row) for row in rows]


async def find_id(conn: Conn, project_id: ProjectId, ref: int | str) -> tuple[VmId, str] | None:
    """Id and owner node of a project's VM by id or name."""
    column = "id" if isinstance(ref, int) else "name"
    row = await conn.fetchrow(f"select id, node from vms where project_id = $1 and {column} = $2", project_id, ref)
    return (VmId(row[0]), row[1]) if row else None


async def find(conn: Conn, vm_id: VmId) -> Vm | None:
    """One VM for its owner's work."""
    row = await conn.fetchrow(f"{_WORK} where v.id = $1", vm_id)
    return _vm(row) if row else None


async def find_pool(conn: Conn, vm_id: VmId) -> PoolId | None:
    """The pool in which a VM's disks lie; it never changes."""
    found = await conn.fetchval("select pool_id from vms where id = $1", vm_id)
    return PoolId(found) if found is not None else None


async def list_of_node(conn: Conn, node: str) -> list[OwnedVm]:
    """All VMs that a node owns."""
    rows = await conn.fetch(
        "select id, uuid, project_id, name, desired, status, operation_id from vms where node = $1 order by id", node
    )
    return [OwnedVm(*row) for row in rows]


async def find_by_uuid(conn: Conn, uuid: UUID) -> Vm | None:
    """One VM by the UUID of its domain."""
    row = await conn.fetchrow(f"{_WORK} where v.uuid = $1", uuid)
    return _vm(row) if row else None


async def list_not_ready(conn: Conn, node: str) -> list[Vm]:
    """A node's VMs that have started or are starting and have not answered, or have no address yet."""
    rows = await conn.fetch(
        f"""{_WORK} where v.node = $1 and v.status in ('creating', 'starting', 'rebooting', 'running')
              and (v.ready_at is null or v.ip is null) order by v.id""",
        node,
    )
    return [_vm(row) for row in rows]


async def lock(conn: Conn, project_id: ProjectId, ref: int | str) -> Vm | None:
    """One VM by id or name, locked until the transaction ends."""
    column = "v.id" if isinstance(ref, int) else "v.name"
    row = await conn.fetchrow(f"{_WORK} where v.project_id = $1 and {column} = $2 for update of v", project_id, ref)
    return _vm(row) if row else None


_INSERT = """
with a as (
    update addresses set vm_id = nextval('vms_id_seq')
     where $17::bigint is not null and (subnet_id, ip) = (
           select subnet_id, ip from addresses where subnet_id = $17 and vm_id is null
            order by released_at nulls first, ip limit 1 for update skip locked)
    returning vm_id, ip)
insert into vms (id, uuid, project_id, name, cpu, ram_mib, disk_gib, image_id, ssh_keys, password_hash, files,
                 user_data, labels, network_id, mac, pool_id, node, ip, desired, status)
overriding system value
select case when $17::bigint is null then nextval('vms_id_seq') else (select vm_id from a) end,
       $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, (select ip from a), 'running', 'creating'
 where $17::bigint is null or exists (select 1 from a)
returning id, ip"""


async def insert_with_address(conn: Conn, vm: NewVm, subnet_id: int | None) -> tuple[VmId, str | None] | None:
    """Insert a VM and, with a subnet, claim its longest-free address; None when no address is free.

    Raises asyncpg.UniqueViolationError when the project has a VM of that name.
    """
    row = await conn.fetchrow(
        _INSERT,
        vm.uuid,
        vm.project_id,
        vm.name,
        vm.cpu,
        vm.ram_mib,
        vm.disk_gib,
        vm.image_id,
        vm.ssh_keys,
        vm.password_hash,
        vm.files,
        vm.user_data,
        vm.labels,
        vm.network_id,
        vm.mac,
        vm.pool_id,
        vm.node,
        subnet_id,
    )
    return (VmId(row[0]), row[1]) if row else None


# Operations of these kinds say themselves whether their VM runs; the others leave that to it.
_POWER_KINDS = "^(vm_|snapshot_restore$)"


def settles_power(kind: str) -> bool:
    """Whether an operation of this kind, while it is live, counts more than what the hypervisor says."""
    return re.match(_POWER_KINDS, kind) is not None


async def observe(
    conn: Conn,
    vm_id: VmId,
    node: str,
    status: str,
    *,
    desired: str | None = None,
    since: OperationId | None = None,
) -> bool:
    """Record what the hypervisor says, unless it is known already, or the VM was given up.

    A live operation that settles the VM's power itself counts more, too; with ``since``, the newest
    operation when the hypervisor was asked, any that has begun after it.
    """
    return bool(
        await conn.fetchval(
            """update vms v set status = $3, desired = coalesce($4, desired),
                      ready_at = case when $3 = 'running' then ready_at end
                where id = $1 and node = $2 and (status <> $3 or desired <> coalesce($4, desired))
                  and status not in ('deleting', 'error') and ($5::bigint is null or operation_id = $5)
                  and not exists (select 1 from operations o
                                   where o.vm_id = v.id and o.state in ('pending', 'running', 'undoing')
                                     and o.kind ~ $6)
               returning true""",
            vm_id,
            node,
            status,
            desired,
            since,
            _POWER_KINDS,
        )
    )


async def set_desired(conn: Conn, vm_id: VmId, desired: str) -> None:
    """Record what is wanted of a VM from now on."""
    await conn.execute("update vms set desired = $2 where id = $1 and desired <> $2", vm_id, desired)


async def set_ready(conn: Conn, vm_id: VmId, node: str) -> bool:
    """Record that the guest answers, once for each start."""
    return bool(
        await conn.fetchval(
            """update vms set ready_at = now()
                where id = $1 and node = $2 and ready_at is null and status = 'running' returning true""",
            vm_id,
            node,
        )
    )


async def set_ip(conn: Conn, mac: str, node: str, ip: str) -> VmId | None:
    """Record the address that a foreign DHCP server gave; the VM's id when that was news."""
    found = await conn.fetchval(
        """update vms v set ip = $3 from networks w
            where v.mac = $1 and v.node = $2 and w.id = v.network_id and w.dhcp = 'external'
              and v.ip is distinct from $3 returning v.id""",
        mac,
        node,
        ip,
    )
    return VmId(found) if found is not None else None


async def delete_released(conn: Conn, vm_id: VmId, *, with_volumes: bool = False) -> None:
    """Delete the row and give back all that its claim took: capacity, disk and address.

    Volumes that go with their VM (or all, ``with_volumes``) are deleted, the others become available.
    """
    # no lock is needed to read: whoever changes a VM or its volumes has an operation on it, and that is the caller.
    # Then rows are locked in the same order as by claims.
    row = await conn.fetchrow(
        """select node, cpu, ram_mib, pool_id,
                  disk_gib + (select coalesce(sum(size_gib), 0)::bigint from volumes
                               where vm_id = v.id and (delete_with_vm or status = 'creating' or $2)) as disk_gib
             from vms v where id = $1""",
        vm_id,
        with_volumes,
    )
    if row is None:
        raise Conflict("vm_state", "The VM is gone already.")
    await conn.execute(
        "update nodes set cpu_claimed = cpu_claimed - $2, ram_claimed_mib = ram_claimed_mib - $3 where name = $1",
        row["node"],
        row["cpu"],
        row["ram_mib"],
    )
    await conn.execute("update pools set claimed_gib = claimed_gib - $2 where id = $1", row["pool_id"], row["disk_gib"])
    await conn.execute("update addresses set vm_id = null, released_at = now() where vm_id = $1", vm_id)
    await conn.execute("delete from snapshots where vm_id = $1", vm_id)
    await conn.execute(
        """with gone as (
               delete from volumes where vm_id = $1 and (delete_with_vm or status = 'creating' or $2))
           update volumes set vm_id = null, slot = null, delete_with_vm = false, status = 'available'
            where vm_id = $1 and not (delete_with_vm or status = 'creating' or $2)""",
        vm_id,
        with_volumes,
    )
    await conn.execute("delete from vms where id = $1", vm_id)
