"""Tables ``operations`` and ``operation_events``: every change of the world, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from terrace.db import Conn
from terrace.types import ImageId, OperationId, ProjectId, SnapshotId, TokenId, VmId, VolumeId

LIVE = ("pending", "running", "undoing")


@dataclass(slots=True)
class Operation:
    """One change. The worker that runs it keeps it in step with its row."""

    id: OperationId
    kind: str
    project_id: ProjectId | None  # None: the platform's own
    vm_id: VmId | None
    vm_name: str | None
    image_id: ImageId | None
    volume_id: VolumeId | None
    snapshot_id: SnapshotId | None
    node: str
    epoch: int
    origin: str | None
    params: Mapping[str, Any]
    steps: Sequence[str]
    cursor: int
    state: str
    attempt: int
    run_after: datetime
    result: dict[str, Any]
    error: Mapping[str, Any] | None
    token_id: TokenId | None
    request_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """How one attempt of one step went."""

    step: str
    phase: str  # "do" or "undo"
    ok: bool
    attempt: int
    started_at: datetime
    duration_ms: float
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewOperation:
    """What an insertion needs; ids of its target are known by then."""

    kind: str
    project_id: ProjectId | None
    node: str
    steps: Sequence[str]
    origin: str | None
    token_id: TokenId | None
    request_id: str
    vm_id: VmId | None = None
    vm_name: str | None = None
    image_id: ImageId | None = None
    volume_id: VolumeId | None = None
    snapshot_id: SnapshotId | None = None
    epoch: int = 1
    cursor: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    during: str | None = None  # the VM's status while it runs, when that is another one
    desired: str | None = None  # what is wanted of the VM from now on, when that changes


COLUMNS = """id, kind, project_id, vm_id, vm_name, image_id, volume_id, snapshot_id, node, epoch, origin, params,
       steps, cursor, state, attempt, run_after, result, error, token_id, request_id, created_at, started_at,
       finished_at"""


async def insert(conn: Conn, new: NewOperation) -> Operation:
    """Insert a pending operation, the newest of its VM and volume; with ``cursor=1`` its first step is done by that.

    Raises asyncpg.UniqueViolationError when its VM or volume has a live operation.
    """
    row = await conn.fetchrow(
        f"""with op as (
                insert into operations (kind, project_id, vm_id, vm_name, image_id, node, epoch, origin, params,
                                        steps, cursor, state, token_id, request_id, volume_id, snapshot_id)
                values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'pending', $12, $13, $16, $17) returning *),
             newest as (
                update vms set operation_id = op.id, status = coalesce($14, status), desired = coalesce($15, desired),
                               error = null
                  from op where vms.id = op.vm_id),
             newest_of_volume as (
                update volumes set operation_id = op.id, error = null from op where volumes.id = op.volume_id),
             newest_of_snapshot as (
                update snapshots set operation_id = op.id from op where snapshots.id = op.snapshot_id),
             claimed as (
                insert into operation_events (operation_id, step, phase, ok, attempt, started_at, duration_ms)
                select id, steps[1], 'do', true, 1, now(),
                       1000 * extract(epoch from clock_timestamp() - now()) from op where cursor > 0)
            select {COLUMNS} from op""",
        new.kind,
        new.project_id,
        new.vm_id,
        new.vm_name,
        new.image_id,
        new.node,
        new.epoch,
        new.origin,
        new.params,
        new.steps,
        new.cursor,
        new.token_id,
        new.request_id,
        new.during,
        new.desired,
        new.volume_id,
        new.snapshot_id,
    )
    assert row is not None
    return Operation(*row)


# Live, and this incarnation ($2) of the node that owns its VM is the one to carry it out.
_OURS = """o.state in ('pending', 'running', 'undoing')
       and exists (select 1 from nodes n where n.name = o.node and n.incarnation = $2)
       and (o.vm_id is null or exists (select 1 from vms v where v.id = o.vm_id and v.epoch = o.epoch))"""

_MOVED = f"""
with moved as (
    update operations o
       set cursor = $3, state = $4, attempt = $5, run_after = now() + make_interval(secs => $6),
           result = case when $7::jsonb is null then result else result || $7 end, error = coalesce($8, error),
           started_at = coalesce(started_at, $13),
           finished_at = case when $4 in ('succeeded', 'failed', 'stuck') then now() end
     where o.id = $1 and {_OURS}
    returning o.id, o.vm_id)"""
_EVENT = """
insert into operation_events (operation_id, step, phase, ok, attempt, started_at, duration_ms, error)
select moved.id, $9, $10, $11, $12, $13, $14, $15 from moved
returning operation_id"""
_SAVE = _MOVED + _EVENT
_SAVE_FAILED = f"""{_MOVED},
 forgotten as (  -- what was undone may be asked for again
    delete from idempotency_keys k using moved where k.operation_id = moved.id)
{_EVENT}"""
_SAVE_WITH_VM = f"""{_MOVED},
 forgotten as (
    delete from idempotency_keys k using moved where $4 = 'failed' and k.operation_id = moved.id),
 changed as (
    update vms v
       set status = $16, error = $17, ready_at = null,
           started_at = case when $18 then now() else v.started_at end
      from moved where v.id = moved.vm_id)
{_EVENT}"""


async def save(
    conn: Conn,
    op: Operation,
    incarnation: int,
    event: Event,
    *,
    delay_s: float = 0.0,
    result: Mapping[str, Any] | None = None,
    vm_status: str | None = None,
    vm_error: Mapping[str, Any] | None = None,
    vm_started: bool = False,
) -> bool:
    """Save the operation's cursor, state and attempt together with what just happened.

    False when this worker may no longer say so: the operation was superseded, another incarnation of
    the node runs, or the VM has another owner.
    """
    vm_change = (vm_status, vm_error, vm_started) if vm_status is not None else ()
    statement = _SAVE_WITH_VM if vm_change else _SAVE_FAILED if op.state == "failed" else _SAVE
    return (
        await conn.fetchval(
            statement,
            op.id,
            incarnation,
            op.cursor,
            op.state,
            op.attempt,
            delay_s,
            result,
            op.error,
            event.step,
            event.phase,
            event.ok,
            event.attempt,
            event.started_at,
            event.duration_ms,
            event.error,
            *vm_change,
        )
        is not None
    )


async def fail(conn: Conn, op_id: OperationId, incarnation: int, error: Mapping[str, Any] | None) -> None:
    """End an operation that has nothing left to work on, so that it stands in nobody's way."""
    await conn.execute(
        f"update operations o set state = 'failed', error = $3, finished_at = now() where o.id = $1 and {_OURS}",
        op_id,
        incarnation,
        error,
    )


async def mark_running(conn: Conn, op_id: OperationId, incarnation: int, since: datetime) -> None:
    """Show a pending operation as begun, while its first step takes its time."""
    await conn.execute(
        f"""update operations o set state = 'running', started_at = $3
             where o.id = $1 and o.state = 'pending' and {_OURS}""",
        op_id,
        incarnation,
        since,
    )


async def list_live(
    conn: Conn, node: str, incarnation: int, excluding: Sequence[int], limit: int
) -> list[tuple[OperationId, VmId | None, str]]:
    """Operations that a node is to carry out, with VM and kind, oldest first, less those in ``excluding``."""
    rows = await conn.fetch(
        f"select id, vm_id, kind from operations o where node = $1 and {_OURS} and id <> all($3) order by id limit $4",
        node,
        incarnation,
        excluding,
        limit,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def find_live(conn: Conn, op_id: OperationId, incarnation: int) -> Operation | None:
    """An operation that its node's given incarnation is to carry out."""
    row = await conn.fetchrow(f"select {COLUMNS} from operations o where id = $1 and {_OURS}", op_id, incarnation)
    return Operation(*row) if row else None


async def list_ended(conn: Conn, ids: Sequence[int]) -> list[Operation]:
    """Those of the given operations that are no longer live."""
    rows = await conn.fetch(
        f"select {COLUMNS} from operations where id = any($1) and state not in ('pending', 'running', 'undoing')",
        ids,
    )
    return [Operation(*row) for row in rows]


async def list_recent_vms(conn: Conn, node: str, kinds: Sequence[str], since_s: float) -> list[VmId]:
    """VMs with an operation of these kinds that was live within the last ``since_s`` seconds."""
    rows = await conn.fetch(
        """select distinct vm_id from operations where node = $1 and kind = any($2) and vm_id is not null
              and (finished_at is null or finished_at > now() - make_interval(secs => $3))""",
        node,
        kinds,
        since_s,
    )
    return [VmId(row[0]) for row in rows]


async def find_live_of_vm(conn: Conn, vm_id: VmId) -> Operation | None:
    """The live operation of a VM."""
    row = await conn.fetchrow(
        f"select {COLUMNS} from operations where vm_id = $1 and state in ('pending', 'running', 'undoing')",
        vm_id,
    )
    return Operation(*row) if row else None


async def find_live_of_volume(conn: Conn, volume_id: VolumeId) -> Operation | None:
    """The live operation of a volume."""
    row = await conn.fetchrow(
        f"select {COLUMNS} from operations where volume_id = $1 and state in ('pending', 'running', 'undoing')",
        volume_id,
    )
    return Operation(*row) if row else None


async def supersede(conn: Conn, op_id: OperationId, by: str) -> bool:
    """End a live operation because a more drastic one replaces it."""
    return bool(
        await conn.fetchval(
            """update operations set state = 'superseded', finished_at = now(),
                      error = jsonb_build_object('code', 'superseded', 'detail', 'Superseded by ' || $2 || '.')
                where id = $1 and state in ('pending', 'running', 'undoing') returning true""",
            op_id,
            by,
        )
    )


async def find(conn: Conn, project_id: ProjectId, op_id: int) -> Operation | None:
    """One operation of a project."""
    row = await conn.fetchrow(f"select {COLUMNS} from operations where id = $1 and project_id = $2", op_id, project_id)
    return Operation(*row) if row else None


async def list_of_project(
    conn: Conn,
    project_id: ProjectId,
    *,
    before: int,
    limit: int,
    vm_id: int | None = None,
    state: str | None = None,
) -> list[Operation]:
    """A project's operations, newest first, from before the id ``before``."""
    where = ["project_id = $1", "id < $2"]
    args: list[Any] = [project_id, before]
    for clause, value in (("vm_id = ${}", vm_id), ("state = ${}", state)):
        if value is not None:
            args.append(value)
            where.append(clause.format(len(args)))
    args.append(limit)
    rows = await conn.fetch(
        f"select {COLUMNS} from operations where {' and '.join(where)} order by id desc limit ${len(args)}",
        *args,
    )
    return [Operation(*row) for row in rows]


async def list_events(conn: Conn, op_ids: Sequence[int]) -> dict[int, list[Event]]:
    """Events of operations, in their order."""
    found: dict[int, list[Event]] = {op_id: [] for op_id in op_ids}
    for row in await conn.fetch(
        """select operation_id, step, phase, ok, attempt, started_at, duration_ms, error
             from operation_events where operation_id = any($1) order by id""",
        op_ids,
    ):
        found[row[0]].append(Event(*row[1:]))
    return found


async def notify(conn: Conn, channel: str, payload: str) -> None:
    """Wake whoever listens to a channel when the transaction commits."""
    await conn.execute("select pg_notify($1, $2)", channel, payload)


async def delete_expired(conn: Conn, days: int) -> int:
    """Delete operations that ended more than ``days`` days ago; returns how many."""
    status = await conn.execute("delete from operations where finished_at < now() - make_interval(days => $1)", days)
    return int(status.split()[-1])
