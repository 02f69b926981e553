"""Tables ``nodes`` and ``pools``: capacity, who has claimed it, and who is alive.

Claims are guarded updates of counters, never sums, so that two of them can't overcommit a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from terrace.db import Conn
from terrace.types import PoolId


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as operators see it; disk figures are its pool's."""

    name: str
    state: str
    cpu: int
    cpu_overcommit: float
    cpu_claimed: int
    ram_mib: int
    ram_overcommit: float
    ram_claimed_mib: int
    disk_gib: int
    disk_overcommit: float
    disk_claimed_gib: int
    vms: int
    last_seen: datetime
    url: str
    pool: str
    storage: str
    pool_shared: bool
    pool_used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Pool:
    """Where disks lie: of one node, or (``node`` is None) of every node that is told to use it."""

    id: PoolId
    name: str
    node: str | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node offers, by its own settings."""

    cpu: int
    cpu_overcommit: float
    ram_mib: int
    ram_overcommit: float
    disk_gib: int | None  # None: not known before the pool answers
    disk_overcommit: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """A node's row as its heartbeat finds it: state and free shares between 0 and 1."""

    state: str
    incarnation: int
    free_share: float


# Not seen for 15 s is down, whatever the operator wants of the node.
_EFFECTIVE = "case when n.last_seen < now() - interval '15 s' then 'down' else n.state end"

# What may be claimed. A real is exact to six digits as numeric, but not in arithmetic: 10 * 0.7 would not be 7.
_CPU = "(n.cpu * n.cpu_overcommit::numeric)"
_RAM = "(n.ram_mib * n.ram_overcommit::numeric)"
_DISK = "(p.disk_gib * p.overcommit::numeric)"

_VIEW = f"""select n.name, {_EFFECTIVE} as state, n.cpu, n.cpu_overcommit::numeric::float8, n.cpu_claimed, n.ram_mib,
       n.ram_overcommit::numeric::float8, n.ram_claimed_mib, p.disk_gib, p.overcommit::numeric::float8, p.claimed_gib,
       (select count(*) from vms v where v.node = n.name), n.last_seen, n.url, p.name, p.driver, p.node is null,
       p.used_bytes
  from nodes n join pools p on p.id = n.pool_id"""


async def list_views(conn: Conn) -> list[NodeView]:
    """All nodes by name."""
    return [NodeView(*row) for row in await conn.fetch(f"{_VIEW} order by n.name")]


async def find_view(conn: Conn, name: str) -> NodeView | None:
    """One node."""
    row = await conn.fetchrow(f"{_VIEW} where n.name = $1", name)
    return NodeView(*row) if row else None


async def find_with_room(conn: Conn, cpu: int, ram_mib: int, disk_gib: int, excluding: list[str]) -> str | None:
    """The active, living node with the most free memory that could take such a VM now."""
    found = await conn.fetchval(
        f"""select n.name from nodes n join pools p on p.id = n.pool_id
             where {_EFFECTIVE} = 'active' and n.name <> all($4)
               and n.cpu_claimed + $1 <= {_CPU} and n.ram_claimed_mib + $2 <= {_RAM} and p.claimed_gib + $3 <= {_DISK}
             order by {_RAM} - n.ram_claimed_mib desc limit 1""",
        cpu,
        ram_mib,
        disk_gib,
        excluding,
    )
    return str(found) if found is not None else None


async def has_node_for(conn: Conn, cpu: int, ram_mib: int, disk_gib: int) -> bool:
    """Whether any node, were it empty, could hold such a VM."""
    return bool(
        await conn.fetchval(
            f"""select exists (select 1 from nodes n join pools p on p.id = n.pool_id
                where $1 <= {_CPU} and $2 <= {_RAM} and $3 <= {_DISK})""",
            cpu,
            ram_mib,
            disk_gib,
        )
    )


async def register(conn: Conn, name: str, url: str, capacity: Capacity) -> int:
    """Record a node's start; returns its new incarnation."""
    found = await conn.fetchval(
        """insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit, incarnation)
           values ($1, $2, $3, $4, $5, $6, 1)
           on conflict (name) do update
              set url = excluded.url, cpu = excluded.cpu, cpu_overcommit = excluded.cpu_overcommit,
                  ram_mib = excluded.ram_mib, ram_overcommit = excluded.ram_overcommit,
                  incarnation = nodes.incarnation + 1, last_seen = now()
           returning incarnation""",
        name,
        url,
        capacity.cpu,
        capacity.cpu_overcommit,
        capacity.ram_mib,
        capacity.ram_overcommit,
    )
    return int(found)


async def ensure_pool(conn: Conn, name: str, driver: str, node: str | None, capacity: Capacity) -> PoolId:
    """Record a pool; returns its id. A capacity that is not known leaves the recorded one."""
    found = await conn.fetchval(
        """insert into pools (name, driver, node, disk_gib, overcommit) values ($1, $2, $3, coalesce($4, 0), $5)
           on conflict (name) do update
              set disk_gib = coalesce($4, pools.disk_gib), overcommit = excluded.overcommit
           returning id""",
        name,
        driver,
        node,
        capacity.disk_gib,
        capacity.disk_overcommit,
    )
    return PoolId(found)


async def use_pool(conn: Conn, name: str, pool_id: PoolId) -> int:
    """Record which pool a node uses from now on; returns how many of its VMs and volumes lie in another one."""
    await conn.execute("update nodes set pool_id = $2 where name = $1", name, pool_id)
    return int(
        await conn.fetchval(
            """select (select count(*) from vms where node = $1 and pool_id <> $2)
                    + (select count(*) from volumes x join pools p on p.id = x.pool_id
                        where p.node = $1 and p.id <> $2)""",
            name,
            pool_id,
        )
    )


async def find_using_pool(conn: Conn, pool_id: PoolId) -> str | None:
    """A living node that uses a pool."""
    found = await conn.fetchval(
        f"select name from nodes n where pool_id = $1 and {_EFFECTIVE} <> 'down' order by last_seen desc limit 1",
        pool_id,
    )
    return str(found) if found is not None else None


async def record_usage(conn: Conn, pool_id: PoolId, used_bytes: int, disk_gib: int | None) -> None:
    """Record what a pool's storage says of itself; its size only with ``disk_gib``."""
    await conn.execute(
        "update pools set used_bytes = $2, disk_gib = coalesce($3, disk_gib) where id = $1",
        pool_id,
        used_bytes,
        disk_gib,
    )


async def find_pool(conn: Conn, pool_id: PoolId) -> Pool | None:
    """One pool."""
    row = await conn.fetchrow("select id, name, node from pools where id = $1", pool_id)
    return Pool(*row) if row else None


async def claim_disk(conn: Conn, pool_id: PoolId, disk_gib: int) -> bool:
    """Claim disk on a pool; false when it has not so much left."""
    return bool(
        await conn.fetchval(
            f"""update pools p set claimed_gib = claimed_gib + $2 where id = $1 and claimed_gib + $2 <= {_DISK}
               returning true""",
            pool_id,
            disk_gib,
        )
    )


async def release_disk(conn: Conn, pool_id: PoolId, disk_gib: int) -> None:
    """Give back what :func:`claim_disk` took."""
    await conn.execute("update pools set claimed_gib = claimed_gib - $2 where id = $1", pool_id, disk_gib)


async def has_pool_for(conn: Conn, disk_gib: int) -> bool:
    """Whether any pool that a node uses, were it empty, could hold so much."""
    return bool(
        await conn.fetchval(
            f"select exists (select 1 from pools p where $1 <= {_DISK} and p.id in (select pool_id from nodes))",
            disk_gib,
        )
    )


async def beat(conn: Conn, name: str, incarnation: int) -> Pulse | None:
    """Record that the node lives; None when a newer incarnation of it runs."""
    row = await conn.fetchrow(
        f"""update nodes n set last_seen = now() from pools p
            where n.name = $1 and n.incarnation = $2 and p.id = n.pool_id
           returning n.state, n.incarnation,
                     least(1 - n.cpu_claimed / nullif({_CPU}, 0), 1 - n.ram_claimed_mib / nullif({_RAM}, 0),
                           1 - p.claimed_gib / nullif({_DISK}, 0))""",
        name,
        incarnation,
    )
    return Pulse(row[0], row[1], float(row[2] or 0.0)) if row else None


async def claim(
    conn: Conn, name: str, incarnation: int, pool_id: PoolId, *, cpu: int, ram_mib: int, disk_gib: int
) -> tuple[bool, bool]:
    """Claim cpu and memory on a node, if it is active and has them, and then disk on a pool, if it has it.

    Says of both whether they were claimed; the caller rolls back unless both were.
    """
    row = await conn.fetchrow(
        f"""with node as (
                update nodes n set cpu_claimed = cpu_claimed + $4, ram_claimed_mib = ram_claimed_mib + $5
                 where name = $1 and incarnation = $2 and state = 'active'
                   and cpu_claimed + $4 <= {_CPU} and ram_claimed_mib + $5 <= {_RAM}
                returning true),
             pool as (
                update pools p set claimed_gib = claimed_gib + $6
                 where id = $3 and exists (select from node) and claimed_gib + $6 <= {_DISK}
                returning true)
           select exists (select from node), exists (select from pool)""",
        name,
        incarnation,
        pool_id,
        cpu,
        ram_mib,
        disk_gib,
    )
    assert row is not None
    return row[0], row[1]


async def why_refused(conn: Conn, name: str, incarnation: int, cpu: int, ram_mib: int) -> str:
    """Why :func:`claim` said no: ``stale``, ``draining``, ``maintenance``, ``cpu`` or ``ram``."""
    row = await conn.fetchrow(
        f"select incarnation, state, cpu_claimed + $2 <= {_CPU} as cpu_fits from nodes n where name = $1",
        name,
        cpu,
    )
    if row is None or row["incarnation"] != incarnation:
        return "stale"
    if row["state"] != "active":
        return str(row["state"])
    return "ram" if row["cpu_fits"] else "cpu"


async def set_state(conn: Conn, name: str, state: str) -> bool:
    """Record what an operator wants of a node; false when there is none of that name."""
    return bool(await conn.fetchval("update nodes set state = $2 where name = $1 returning true", name, state))
