"""Advisory locks, for what one process of the cluster does alone."""

from __future__ import annotations

from terrace.db import Conn

_LOCK = 7_237_001  # any number that nobody else uses in this database


async def try_lock(conn: Conn) -> bool:
    """Whether this transaction is the one that keeps house now."""
    return bool(await conn.fetchval("select pg_try_advisory_xact_lock($1)", _LOCK))
