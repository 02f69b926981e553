"""What a driver tells, to everyone who listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Broadcast(Generic[T]):
    """Hands each item to every listener, in order. Used from one event loop only."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[T | None]] = set()

    def publish(self, item: T) -> None:
        """Never waits: items are small and few, so that queues are not bounded."""
        for listener in self._listeners:
            listener.put_nowait(item)

    def close(self) -> None:
        """End every listener's iteration."""
        for listener in self._listeners:
            listener.put_nowait(None)

    def listen(self) -> AsyncIterator[T]:
        """Items from this call on (not from the first iteration on)."""
        queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._listeners.add(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[T | None]) -> AsyncIterator[T]:
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            self._listeners.discard(queue)
