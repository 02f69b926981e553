"""Tables ``snapshots`` and ``snapshot_disks``: points in time of all disks of a VM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from terrace.db import Conn
from terrace.types import OperationId, ProjectId, SnapshotId, VmId, VolumeId


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot as its users see it."""

    id: SnapshotId
    name: str
    status: str
    consistency: str | None
    vm_id: VmId
    vm_name: str
    disks: Sequence[Mapping[str, Any]]  # volume (its name; null: the system disk) and size_gib then
    created_at: datetime
    operation_id: OperationId | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as the node works on it; ``disks`` maps volumes (None: the system disk) to their size then."""

    id: SnapshotId
    uuid: UUID
    vm_id: VmId
    name: str
    status: str
    disks: Mapping[VolumeId | None, int]


_VIEW = """select s.id, s.name, s.status, s.consistency, s.vm_id, v.name,
       (select coalesce(jsonb_agg(jsonb_build_object('volume', x.name, 'size_gib', d.size_gib)
                                  order by d.volume_id nulls first), '[]')
          from snapshot_disks d left join volumes x on x.id = d.volume_id where d.snapshot_id = s.id),
       s.created_at, s.operation_id
  from snapshots s join vms v on v.id = s.vm_id"""

_WORK = """select s.id, s.uuid, s.vm_id, s.name, s.status,
       (select jsonb_agg(jsonb_build_array(d.volume_id, d.size_gib)) from snapshot_disks d where d.snapshot_id = s.id)
  from snapshots s"""


def _snapshot(row: asyncpg.Record) -> Snapshot:
    values: list[Any] = list(row)
    values[-1] = dict(values[-1] or ())
    return Snapshot(*values)


async def find_view(conn: Conn, vm_id: VmId, ref: int | str) -> SnapshotView | None:
    """One snapshot of a VM by id or name."""
    column = "s.id" if isinstance(ref, int) else "s.name"
    row = await conn.fetchrow(f"{_VIEW} where s.vm_id = $1 and {column} = $2", vm_id, ref)
    return SnapshotView(*row) if row else None


async def list_views(
    conn: Conn, project_id: ProjectId, *, after: int, limit: int, vm_id: VmId | None = None
) -> list[SnapshotView]:
    """A project's snapshots by ascending id, from behind ``after``; of one VM, or of all."""
    of_vm = "" if vm_id is None else "and s.vm_id = $4"
    rows = await conn.fetch(
        f"{_VIEW} where s.project_id = $1 and s.id > $2 {of_vm} order by s.id limit $3",
        project_id,
        after,
        limit,
        *(() if vm_id is None else (vm_id,)),
    )
    return [SnapshotView(*row) for row in rows]


async def lock(conn: Conn, vm_id: VmId, ref: int | str) -> Snapshot | None:
    """One snapshot of a VM by id or name, locked as its VM is: an operation that ends may delete it."""
    column = "s.id" if isinstance(ref, int) else "s.name"
    row = await conn.fetchrow(f"{_WORK} where s.vm_id = $1 and {column} = $2 for update of s", vm_id, ref)
    return _snapshot(row) if row else None


async def find_by_id(conn: Conn, snapshot_id: SnapshotId) -> Snapshot | None:
    """One snapshot of any VM."""
    row = await conn.fetchrow(f"{_WORK} where s.id = $1", snapshot_id)
    return _snapshot(row) if row else None


async def list_of_vm(conn: Conn, vm_id: VmId) -> list[Snapshot]:
    """All snapshots of a VM."""
    return [_snapshot(row) for row in await conn.fetch(f"{_WORK} where s.vm_id = $1 order by s.id", vm_id)]


async def list_names_with_volume(conn: Conn, volume_id: VolumeId) -> list[str]:
    """Names of the snapshots that a volume is part of."""
    rows = await conn.fetch(
        """select s.name from snapshot_disks d join snapshots s on s.id = d.snapshot_id
            where d.volume_id = $1 order by s.id""",
        volume_id,
    )
    return [row[0] for row in rows]


async def insert(
    conn: Conn, uuid: UUID, project_id: ProjectId, vm_id: VmId, name: str, disks: Mapping[VolumeId | None, int]
) -> SnapshotId:
    """Insert a snapshot that is still to be taken. Raises asyncpg.UniqueViolationError for a name that is taken."""
    found = await conn.fetchval(
        """with new as (
               insert into snapshots (uuid, project_id, vm_id, name, status) values ($1, $2, $3, $4, 'creating')
               returning id),
             disks as (
               insert into snapshot_disks (snapshot_id, volume_id, size_gib)
               select new.id, d.* from new, unnest($5::bigint[], $6::bigint[]) d)
           select id from new""",
        uuid,
        project_id,
        vm_id,
        name,
        list(disks.keys()),
        list(disks.values()),
    )
    return SnapshotId(found)


async def set_status(conn: Conn, snapshot_id: SnapshotId, status: str, consistency: str | None = None) -> None:
    """Record what a snapshot is now, and what it can be trusted for when that is news."""
    await conn.execute(
        "update snapshots set status = $2, consistency = coalesce($3, consistency) where id = $1",
        snapshot_id,
        status,
        consistency,
    )


async def delete(conn: Conn, snapshot_id: SnapshotId) -> None:
    """Delete the row."""
    await conn.execute("delete from snapshots where id = $1", snapshot_id)
