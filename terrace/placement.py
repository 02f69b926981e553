"""Redis: which node owns a VM, as a shortcut. Losing it loses nothing; it never raises."""

from __future__ import annotations

import time

import redis.asyncio as redis
from redis.exceptions import RedisError

from terrace import log
from terrace.types import VmId

_log = log.get(__name__)
_REST_S = 1.0  # how long a Redis that failed is left alone

_ERRORS = (RedisError, OSError, TimeoutError)


class Placement:
    """``placement:{vm}`` → node."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            decode_responses=True,
            max_connections=64,
        )
        self._resting_until = 0.0

    async def get(self, project_id: int, vm_id: VmId) -> str | None:
        """The node that owns the project's VM, when Redis knows it."""
        if self._resting():
            return None
        try:
            found = await self._redis.get(f"placement:{project_id}:{vm_id}")
        except _ERRORS as exc:
            self._rest(exc)
            return None
        return str(found) if found else None

    async def set(self, project_id: int, vm_id: VmId, node: str) -> None:
        """Remember the owner, if Redis can be reached."""
        if not self._resting():
            try:
                await self._redis.set(f"placement:{project_id}:{vm_id}", node)
            except _ERRORS as exc:
                self._rest(exc)

    async def delete(self, project_id: int, vm_id: VmId) -> None:
        """Forget a VM, if Redis can be reached."""
        if not self._resting():
            try:
                await self._redis.delete(f"placement:{project_id}:{vm_id}")
            except _ERRORS as exc:
                self._rest(exc)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            await self._redis.ping()
        except _ERRORS:
            return False
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    def _resting(self) -> bool:
        return time.monotonic() < self._resting_until

    def _rest(self, exc: Exception) -> None:
        self._resting_until = time.monotonic() + _REST_S
        _log.warning("redis_unavailable", error=repr(exc))
