"""What one node of the cluster does alone, under an advisory lock: forgetting what is old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from terrace import log
from terrace.problems import DATABASE_ERRORS
from terrace.store import housekeeping, idempotency, operations

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_EVERY_S: Final = 300.0
_OPERATIONS_KEPT_DAYS: Final = 30


async def keep_house(host: Host) -> None:
    """Every few minutes, if no other node is at it, forget expired keys and old operations."""
    while True:
        try:
            async with host.pool.acquire() as conn, conn.transaction():
                if await housekeeping.try_lock(conn):
                    keys = await idempotency.delete_expired(conn)
                    old = await operations.delete_expired(conn, _OPERATIONS_KEPT_DAYS)
                    _log.info("house_kept", idempotency_keys=keys, operations=old)
        except DATABASE_ERRORS as exc:
            _log.warning("housekeeping_failed", error=repr(exc))
        await asyncio.sleep(_EVERY_S)
