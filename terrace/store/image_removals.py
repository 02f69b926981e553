"""Table ``image_removals``: bytes that leave a pool, and who may still come to rely on them.

Removing bytes and beginning to want them are decided under one advisory lock for each checksum; the
storage is asked outside of any transaction. Whoever is to want bytes that he has seen in a pool reads
:func:`find_last` before he looks, and calls :func:`refuse_if_begun` in the transaction that records them,
after his own rows are written.
"""

from __future__ import annotations

from datetime import datetime

from terrace.db import Conn
from terrace.errors import Transient
from terrace.types import ImageId, PoolId

_LOCK = 7_237  # a class of advisory locks that nobody else uses in this database
# of a node that died at it; well beyond the time for which any storage's removal is waited for
_PATIENCE = "20 minutes"
_KEPT = "1 day"


def being_removed() -> Transient:
    """The one error of bytes that are leaving, or have just left."""
    return Transient("service_unavailable", "An image of the same bytes is being deleted just now. Try again.")


async def begin(conn: Conn, pool_id: PoolId, sha256: str, node: str, *, but: ImageId | None = None) -> datetime | None:
    """Begin to remove; None when an image (``but`` that one) wants the bytes, or another node is at it.

    A removal of this node's own that has not ended goes on.
    """
    await lock(conn, sha256)
    began: datetime | None = await conn.fetchval(
        f"""insert into image_removals as r (pool_id, sha256, node, began_at)
            select $1, $2, $3, clock_timestamp()
             where not exists (select 1 from images where sha256 = $2 and id is distinct from $4)
            on conflict (pool_id, sha256) do update
               set node = excluded.node, began_at = excluded.began_at, ended_at = null
             where r.ended_at is not null or r.node = excluded.node or r.began_at < now() - interval '{_PATIENCE}'
            returning began_at""",
        pool_id,
        sha256,
        node,
        but,
    )
    return began


async def end(conn: Conn, pool_id: PoolId, sha256: str, began: datetime, *, removed: bool) -> None:
    """The storage has done it, or has refused to; in the former case no node of the pool has the bytes any more."""
    ended = await conn.fetchval(
        """update image_removals set ended_at = clock_timestamp()
            where pool_id = $1 and sha256 = $2 and began_at = $3 returning true""",
        pool_id,
        sha256,
        began,
    )
    if ended and removed:
        await conn.execute(
            """delete from image_locations l using nodes n
                where n.name = l.node and n.pool_id = $1 and l.sha256 = $2""",
            pool_id,
            sha256,
        )


async def find_last(conn: Conn, pool_id: PoolId, sha256: str) -> datetime | None:
    """When the last removal began; raises Transient while one goes on."""
    row = await conn.fetchrow(
        "select began_at, ended_at from image_removals where pool_id = $1 and sha256 = $2", pool_id, sha256
    )
    if row is None:
        return None
    if row["ended_at"] is None:
        raise being_removed()
    began: datetime = row["began_at"]
    return began


async def refuse_if_begun(conn: Conn, pool_id: PoolId, sha256: str, last: datetime | None) -> None:
    """Raise Transient when a removal has begun after the ``last`` one; none will, once this transaction commits."""
    await lock(conn, sha256)
    if await find_last(conn, pool_id, sha256) not in (None, last):
        raise being_removed()


async def list_unwanted(conn: Conn, pool_id: PoolId, node: str) -> list[str]:
    """Checksums that no image has and no operation of the node removes: of its bytes, and of what others left open."""
    rows = await conn.fetch(
        f"""select sha256 from (
                select sha256 from image_locations where node = $2
                union
                select sha256 from image_removals
                 where pool_id = $1 and ended_at is null
                   and (node = $2 or began_at < now() - interval '{_PATIENCE}')) known
             where not exists (select 1 from images i where i.sha256 = known.sha256)
               and not exists (select 1 from operations o
                                where o.node = $2 and o.state in ('pending', 'running', 'undoing')
                                  and o.params->>'sha256' = known.sha256)
             order by sha256""",
        pool_id,
        node,
    )
    return [row[0] for row in rows]


async def delete_ended(conn: Conn) -> None:
    """Forget removals that ended long ago."""
    await conn.execute(f"delete from image_removals where ended_at < now() - interval '{_KEPT}'")


async def lock(conn: Conn, sha256: str) -> None:
    """Wait for, and hold up, other decisions about these bytes until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock($1, hashtext($2))", _LOCK, sha256)
