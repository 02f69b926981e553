"""Tables ``networks``, ``subnets`` and ``addresses``: bridges, and who gives addresses on them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from terrace.db import Conn
from terrace.types import NetworkId, SubnetId

_RESERVED = 9  # first host addresses of a subnet: gateway, services, an operator's own


@dataclass(frozen=True, slots=True)
class Network:
    """A layer-2 segment; ``subnet_id`` and what follows are None where somebody else's DHCP rules."""

    id: NetworkId
    name: str
    bridge: str
    dhcp: str
    created_at: datetime
    subnet_id: SubnetId | None
    cidr: str | None
    gateway: str | None
    dns: Sequence[str]


_VIEW = """select w.id, w.name, w.bridge, w.dhcp, w.created_at, s.id as subnet_id, s.cidr, s.gateway,
       coalesce(s.dns, '{}') as dns
  from networks w left join subnets s on s.network_id = w.id"""


async def find(conn: Conn, ref: int | str) -> Network | None:
    """One network by id or name."""
    column = "w.id" if isinstance(ref, int) else "w.name"
    row = await conn.fetchrow(f"{_VIEW} where {column} = $1", ref)
    return Network(*row) if row else None


async def list_all(conn: Conn) -> list[Network]:
    """All networks by id."""
    return [Network(*row) for row in await conn.fetch(f"{_VIEW} order by w.id")]


async def insert(conn: Conn, name: str, bridge: str, dhcp: str) -> NetworkId:
    """Insert a network. Raises asyncpg.UniqueViolationError when the name is taken."""
    found = await conn.fetchval(
        "insert into networks (name, bridge, dhcp) values ($1, $2, $3) returning id", name, bridge, dhcp
    )
    return NetworkId(found)


async def insert_subnet(
    conn: Conn,
    network_id: NetworkId,
    cidr: ipaddress.IPv4Network,
    gateway: ipaddress.IPv4Address,
    dns: Sequence[str],
) -> None:
    """Insert a subnet with a row for each address that VMs may have: not the first nine, not the gateway."""
    subnet_id = await conn.fetchval(
        "insert into subnets (network_id, cidr, gateway, dns) values ($1, $2, $3, $4) returning id",
        network_id,
        str(cidr),
        str(gateway),
        dns,
    )
    first = cidr.network_address + 1 + (_RESERVED if cidr.num_addresses > 4 * _RESERVED else 1)
    count = int(cidr.broadcast_address) - int(first)
    await conn.execute(
        """insert into addresses (subnet_id, ip)
           select $1, $2::inet + n from generate_series(0, $3::bigint - 1) n where $2::inet + n <> $4::inet""",
        subnet_id,
        str(first),
        count,
        str(gateway),
    )


async def delete(conn: Conn, network_id: NetworkId) -> None:
    """Delete a network. Raises asyncpg.ForeignKeyViolationError while VMs are on it."""
    await conn.execute("delete from networks where id = $1", network_id)
