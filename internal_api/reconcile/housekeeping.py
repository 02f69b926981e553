"""Every few minutes: one node of the cluster forgets what is old, and each removes bytes that nobody wants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from internal_api import change
from internal_api.workflows import remove_image
from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import housekeeping, idempotency, image_removals, operations
from terrace.store.operations import NewOperation

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_EVERY_S: Final = 300.0
_OPERATIONS_KEPT_DAYS: Final = 30


async def keep_house(host: Host) -> None:
    """Until cancelled."""
    while True:
        try:
            await _forget(host)
            await remove_unwanted_images(host)
        except (*DATABASE_ERRORS, TerraceError) as exc:
            _log.warning("housekeeping_failed", error=repr(exc))
        await asyncio.sleep(_EVERY_S)


async def _forget(host: Host) -> None:
    """Forget expired keys and old operations, if no other node is at it."""
    async with host.pool.acquire() as conn, conn.transaction():
        if await housekeeping.try_lock(conn):
            keys = await idempotency.delete_expired(conn)
            old = await operations.delete_expired(conn, _OPERATIONS_KEPT_DAYS)
            await image_removals.delete_ended(conn)
            _log.info("house_kept", idempotency_keys=keys, operations=old)


async def remove_unwanted_images(host: Host) -> None:
    """Begin to remove bytes that no image has: left by what failed, or kept until their last clone went."""
    async with host.pool.acquire() as conn:
        unwanted = await image_removals.list_unwanted(conn, host.pool_id, host.node)
    for sha256 in unwanted:
        if await host.storage.count_children(sha256):
            continue
        async with host.pool.acquire() as conn, conn.transaction():
            await operations.insert(
                conn,
                NewOperation(
                    kind=remove_image.KIND,
                    project_id=None,
                    node=host.node,
                    steps=remove_image.STEP_NAMES,
                    origin=host.node,
                    token_id=None,
                    request_id="housekeeping",
                    params={"sha256": sha256},
                ),
            )
            await operations.notify(conn, change.wake_channel(host.node), "wake")
