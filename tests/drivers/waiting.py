"""Waiting for what must happen, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Collected(Generic[T]):
    """Everything that an iterator has brought so far."""

    def __init__(self, source: AsyncIterator[T]) -> None:
        self.items: list[T] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._collect(source))

    async def _collect(self, source: AsyncIterator[T]) -> None:
        async for item in source:
            async with self._changed:
                self.items.append(item)
                self._changed.notify_all()

    async def wait_for(self, wanted: Callable[[T], bool], timeout_s: float = 10.0) -> T:
        """The first item that is wanted."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while not (found := [item for item in self.items if wanted(item)]):
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s; there were {self.items}") from None
        return found[0]

    async def wait_for_end(self, timeout_s: float = 5.0) -> None:
        """Until the iterator has ended."""
        async with asyncio.timeout(timeout_s):
            await self._task


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def eventually_true(ask: Callable[[], Awaitable[object]], timeout_s: float = 10.0) -> None:
    """Ask until the answer is true."""
    async with asyncio.timeout(timeout_s):
        while not await ask():
            await asyncio.sleep(0.1)
