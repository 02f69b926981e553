"""Waiting for what must become true, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float = 15.0, every_s: float = 0.05) -> T:
    """What ``look`` returns once that is true; AssertionError with its last result when it does not become so."""
    deadline = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {within_s:g} s"
        await asyncio.sleep(every_s)
