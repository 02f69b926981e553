"""Table ``volumes``: data disks that outlive, or go with, the VM they are plugged into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from terrace.db import Conn
from terrace.types import MAX_VOLUMES, OperationId, PoolId, ProjectId, VmId, VolumeId

FIRST_SLOT = 2


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume as its users see it."""

    id: VolumeId
    name: str
    status: str
    size_gib: int
    vm_id: VmId | None
    vm_name: str | None
    pool: str | None
    node: str | None
    delete_with_vm: bool
    created_at: datetime
    operation_id: OperationId | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the node works on it. ``node`` is its pool's, when that belongs to one."""

    id: VolumeId
    uuid: UUID
    project_id: ProjectId
    name: str
    size_gib: int
    pool_id: PoolId | None
    node: str | None
    vm_id: VmId | None
    slot: int | None
    delete_with_vm: bool
    status: str


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What an insertion needs."""

    uuid: UUID
    project_id: ProjectId
    name: str
    size_gib: int
    pool_id: PoolId | None
    vm_id: VmId | None = None
    slot: int | None = None
    delete_with_vm: bool = False


_VIEW = """select x.id, x.name, x.status, x.size_gib, x.vm_id, v.name, p.name, p.node, x.delete_with_vm, x.created_at,
       x.operation_id, x.error
  from volumes x left join vms v on v.id = x.vm_id left join pools p on p.id = x.pool_id"""

_WORK = """select x.id, x.uuid, x.project_id, x.name, x.size_gib, x.pool_id, p.node, x.vm_id, x.slot, x.delete_with_vm,
       x.status
  from volumes x left join pools p on p.id = x.pool_id"""


def _column(ref: int | str) -> str:
    return "x.id" if isinstance(ref, int) else "x.name"


async def find_view(conn: Conn, project_id: ProjectId, ref: int | str) -> VolumeView | None:
    """One volume of a project by id or name."""
    row = await conn.fetchrow(f"{_VIEW} where x.project_id = $1 and {_column(ref)} = $2", project_id, ref)
    return VolumeView(*row) if row else None


async def list_views(
    conn: Conn, project_id: ProjectId, *, after: int, limit: int, vm_id: int | None = None, status: str | None = None
) -> list[VolumeView]:
    """A project's volumes by ascending id, from behind ``after``; every filter given must hold."""
    where = ["x.project_id = $1", "x.id > $2"]
    args: list[Any] = [project_id, after]
    for clause, value in (("x.vm_id = ${}", vm_id), ("x.status = ${}", status)):
        if value is not None:
            args.append(value)
            where.append(clause.format(len(args)))
    args.append(limit)
    rows = await conn.fetch(f"{_VIEW} where {' and '.join(where)} order by x.id limit ${len(args)}", *args)
    return [VolumeView(*row) for row in rows]


async def find(conn: Conn, project_id: ProjectId, ref: int | str) -> Volume | None:
    """One volume of a project, for work on it."""
    row = await conn.fetchrow(f"{_WORK} where x.project_id = $1 and {_column(ref)} = $2", project_id, ref)
    return Volume(*row) if row else None


async def find_by_id(conn: Conn, volume_id: VolumeId) -> Volume | None:
    """One volume of any project."""
    row = await conn.fetchrow(f"{_WORK} where x.id = $1", volume_id)
    return Volume(*row) if row else None


async def lock(conn: Conn, volume_id: VolumeId) -> Volume | None:
    """One volume, locked until the transaction ends."""
    row = await conn.fetchrow(f"{_WORK} where x.id = $1 for update of x", volume_id)
    return Volume(*row) if row else None


async def list_sizes(conn: Conn, vm_id: VmId) -> dict[VolumeId, int]:
    """GiB of each volume that is plugged into a VM."""
    rows = await conn.fetch("select id, size_gib from volumes where vm_id = $1 order by slot", vm_id)
    return {VolumeId(row[0]): row[1] for row in rows}


async def find_node(conn: Conn, project_id: ProjectId, ref: int | str) -> str | None:
    """The node that works on a volume: its VM's owner, else its pool's; None when any can, or there is none."""
    found = await conn.fetchval(
        f"""select coalesce(v.node, p.node) from volumes x left join vms v on v.id = x.vm_id
              left join pools p on p.id = x.pool_id where x.project_id = $1 and {_column(ref)} = $2""",
        project_id,
        ref,
    )
    return str(found) if found is not None else None


async def insert(conn: Conn, new: Sequence[NewVolume]) -> list[VolumeId]:
    """Insert volumes that are still to be made. Raises asyncpg.UniqueViolationError for a name that is taken."""
    rows = await conn.fetch(
        """insert into volumes (uuid, project_id, name, size_gib, pool_id, vm_id, slot, delete_with_vm, status)
           select *, 'creating' from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[],
                                            $6::bigint[], $7::integer[], $8::boolean[])
           returning id""",
        *zip(
            *(
                (one.uuid, one.project_id, one.name, one.size_gib, one.pool_id, one.vm_id, one.slot, one.delete_with_vm)
                for one in new
            ),
            strict=True,
        ),
    )
    return [VolumeId(row[0]) for row in rows]


async def set_status(conn: Conn, volume_id: VolumeId, status: str) -> None:
    """Record what a volume is now."""
    await conn.execute("update volumes set status = $2 where id = $1", volume_id, status)


async def set_plugged(conn: Conn, vm_id: VmId) -> None:
    """Record that a VM's volumes are all plugged in."""
    await conn.execute("update volumes set status = 'in_use' where vm_id = $1 and status = 'creating'", vm_id)


async def set_error(conn: Conn, volume_id: VolumeId, error: Mapping[str, Any] | None) -> None:
    """Record that an operation on a volume was given up."""
    await conn.execute("update volumes set status = 'error', error = $2 where id = $1", volume_id, error)


async def set_size(conn: Conn, volume_id: VolumeId, size_gib: int) -> None:
    """Record a volume's new size."""
    await conn.execute("update volumes set size_gib = $2 where id = $1", volume_id, size_gib)


async def find_free_slot(conn: Conn, vm_id: VmId) -> int | None:
    """The first slot of a VM that no volume has; None when all are taken. Its VM is locked by the caller."""
    found = await conn.fetchval(
        """select min(s) from generate_series($2::integer, $3::integer) s
            where not exists (select 1 from volumes x where x.vm_id = $1 and x.slot = s)""",
        vm_id,
        FIRST_SLOT,
        FIRST_SLOT + MAX_VOLUMES - 1,
    )
    return int(found) if found is not None else None


async def plug(
    conn: Conn, volume_id: VolumeId, vm_id: VmId, slot: int, pool_id: PoolId, *, delete_with_vm: bool
) -> None:
    """Record that a volume is about to be plugged into a VM, and in which pool it lies from now on."""
    await conn.execute(
        """update volumes set vm_id = $2, slot = $3, pool_id = $4, delete_with_vm = $5, status = 'attaching'
            where id = $1""",
        volume_id,
        vm_id,
        slot,
        pool_id,
        delete_with_vm,
    )


async def unplug(conn: Conn, volume_id: VolumeId, *, unbind: bool = False) -> None:
    """Record that a volume is free again; with ``unbind`` also that nothing of it is stored any more."""
    await conn.execute(
        """update volumes set vm_id = null, slot = null, delete_with_vm = false, status = 'available',
                  pool_id = case when $2 then null else pool_id end
            where id = $1""",
        volume_id,
        unbind,
    )


async def delete(conn: Conn, volume_id: VolumeId) -> None:
    """Delete the row."""
    await conn.execute("delete from volumes where id = $1", volume_id)
