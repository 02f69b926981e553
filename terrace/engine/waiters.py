"""Requests that wait for an operation to end, holding no database connection."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from terrace import log
from terrace.db import Pool
from terrace.problems import DATABASE_ERRORS
from terrace.store import operations
from terrace.store.operations import LIVE, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = log.get(__name__)
_CHECK_EVERY_S = 2.0


class Waiters:
    """Who waits for which operation on this node."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: dict[int, list[asyncio.Future[Operation]]] = {}
        self._released = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def expecting(self, op_id: int) -> Iterator[asyncio.Future[Operation]]:
        """A future for the operation's end; make it before the operation can end."""
        future: asyncio.Future[Operation] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(op_id, []).append(future)
        try:
            yield future
        finally:
            future.cancel()
            rest = self._waiting.get(op_id, [])
            if future in rest:
                rest.remove(future)
            if not rest:
                self._waiting.pop(op_id, None)

    def resolve(self, op: Operation) -> None:
        """The operation has ended."""
        for future in self._waiting.pop(op.id, []):
            if not future.done():
                future.set_result(op)

    def release_all(self) -> None:
        """Stop all waiting: this process goes away; operations go on at its next start."""
        self._released.set()

    async def wait(self, future: asyncio.Future[Operation], op: Operation, timeout_s: float) -> Operation:
        """The operation as it is when it has ended, or when ``timeout_s`` seconds are over.

        Notifications from other nodes can be lost with a connection, so the row is looked at, too.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        released = asyncio.ensure_future(self._released.wait())
        try:
            while not future.done() and not released.done():
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                waits: list[asyncio.Future[Any]] = [future, released]
                done, _ = await asyncio.wait(
                    waits, timeout=min(left, _CHECK_EVERY_S), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    await self.look_up([op.id])
        finally:
            released.cancel()
        return future.result() if future.done() and not future.cancelled() else op

    async def look_up(self, op_ids: list[int] | None = None) -> None:
        """Resolve those waited for that have ended according to PostgreSQL."""
        ids = [op_id for op_id in (op_ids or list(self._waiting)) if op_id in self._waiting]
        if not ids:
            return
        try:
            async with self._pool.acquire() as conn:
                ended = await operations.list_ended(conn, ids)
        except DATABASE_ERRORS as exc:
            _log.warning("waiters_look_failed", error=repr(exc))  # who waits looks again, until its time is up
            return
        for op in ended:
            self.resolve(op)


def is_live(op: Operation) -> bool:
    """Whether the operation has not ended yet."""
    return op.state in LIVE
