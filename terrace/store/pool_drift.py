"""Tables ``pool_drift`` and ``cloud``: what a pool holds that no row speaks of, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from terrace.db import Conn
from terrace.types import PoolId


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing of a pool. ``orphan``: ours, without a row; ``missing``: a row's, not there; ``foreign``."""

    name: str
    kind: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool and when it was last compared with the rows; None: not yet."""

    name: str
    driver: str
    checked_at: datetime | None
    used_bytes: int | None


async def cloud_id(conn: Conn) -> UUID:
    """The mark of everything that this cloud makes in a pool."""
    found: UUID = await conn.fetchval("select id from cloud")
    return UUID(bytes=found.bytes)


async def begin_check(conn: Conn, pool_id: PoolId, every_s: float) -> bool:
    """Whether the caller is the one that compares a pool with the rows now; it was not done for so long."""
    return bool(
        await conn.fetchval(
            """update pools set checked_at = now()
                where id = $1 and coalesce(checked_at < now() - make_interval(secs => $2), true) returning true""",
            pool_id,
            every_s,
        )
    )


async def list_expected(conn: Conn, pool_id: PoolId) -> dict[str, bool]:
    """Names that a pool should hold by the rows; true for those that must be there now.

    A thing whose VM or volume has a live operation, or is not whole, may be there or not.
    """
    rows = await conn.fetch(
        """with busy_vms as (select vm_id from operations where vm_id is not null
                                and state in ('pending', 'running', 'undoing')),
                busy_volumes as (select volume_id from operations where volume_id is not null
                                    and state in ('pending', 'running', 'undoing'))
           select v.uuid || '-root', v.status not in ('creating', 'deleting', 'error')
                                     and v.id not in (select vm_id from busy_vms)
             from vms v where v.pool_id = $1
           union all
           select v.uuid || '-seed', false from vms v where v.pool_id = $1
           union all
           select x.uuid || '-data', x.status in ('available', 'in_use')
                                     and x.id not in (select volume_id from busy_volumes)
                                     and coalesce(x.vm_id not in (select vm_id from busy_vms), true)
             from volumes x where x.pool_id = $1""",
        pool_id,
    )
    return {row[0]: row[1] for row in rows}


async def replace(conn: Conn, pool_id: PoolId, found: Mapping[str, str]) -> None:
    """Record the outcome of a check: names and kinds. What was known keeps the time it was first seen."""
    await conn.execute(
        """with checked as (update pools set checked_at = now() where id = $1),
             now_found as (select * from unnest($2::text[], $3::text[]) as f(name, kind)),
             gone as (delete from pool_drift where pool_id = $1 and name <> all($2))
           insert into pool_drift (pool_id, name, kind) select $1, name, kind from now_found
           on conflict (pool_id, name) do update
              set last_seen = now(), kind = excluded.kind,
                  first_seen = case when pool_drift.kind = excluded.kind then pool_drift.first_seen else now() end""",
        pool_id,
        list(found.keys()),
        list(found.values()),
    )


async def list_of_pool(conn: Conn, pool_id: PoolId) -> list[Difference]:
    """What the last check of a pool found."""
    rows = await conn.fetch(
        "select name, kind, first_seen, last_seen from pool_drift where pool_id = $1 order by kind, name", pool_id
    )
    return [Difference(*row) for row in rows]


async def count_by_kind(conn: Conn, pool_id: PoolId) -> dict[str, int]:
    """How many differences of each kind the last check of a pool found."""
    rows = await conn.fetch("select kind, count(*) from pool_drift where pool_id = $1 group by kind", pool_id)
    return {row[0]: row[1] for row in rows}


async def list_old_orphans(conn: Conn, pool_id: PoolId, older_than_s: float) -> list[str]:
    """Names of orphans that have been seen for so long."""
    rows = await conn.fetch(
        """select name from pool_drift where pool_id = $1 and kind = 'orphan'
              and first_seen <= now() - make_interval(secs => $2) order by name""",
        pool_id,
        older_than_s,
    )
    return [row[0] for row in rows]


async def forget(conn: Conn, pool_id: PoolId, names: Sequence[str]) -> None:
    """Forget differences that were cleared."""
    await conn.execute("delete from pool_drift where pool_id = $1 and name = any($2)", pool_id, names)


async def find_pool_of_node(conn: Conn, node: str) -> tuple[PoolId, PoolState] | None:
    """The pool that a node uses."""
    row = await conn.fetchrow(
        """select p.id, p.name, p.driver, p.checked_at, p.used_bytes
             from nodes n join pools p on p.id = n.pool_id where n.name = $1""",
        node,
    )
    return (PoolId(row[0]), PoolState(*row[1:])) if row else None


async def count_live(conn: Conn, pool_id: PoolId) -> int:
    """How many operations are live that may work on a pool's volumes."""
    return int(
        await conn.fetchval(
            """select count(*) from operations o
                where state in ('pending', 'running', 'undoing')
                  and (o.vm_id in (select id from vms where pool_id = $1)
                       or o.volume_id in (select id from volumes where pool_id = $1 or pool_id is null)
                       or o.image_id is not null)""",
            pool_id,
        )
    )
