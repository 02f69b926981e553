"""What an external node has at hand: a reader's connections, the way to the internal tier."""

from __future__ import annotations

import time
from typing import Annotated

import asyncpg
import httpx
from fastapi import Depends, Request
from httpx_aiohttp import HttpxAiohttpClient

from external_api.forward import Forwarder
from external_api.settings import ExternalSettings
from external_api.tokens import TokenCache
from terrace import db
from terrace.placement import Placement

_CHECK_EVERY_S = 1.0


class Edge:
    """One external node, put together."""

    def __init__(self, settings: ExternalSettings, pool: db.Pool) -> None:
        self.settings = settings
        self.pool = pool
        self.placement = Placement(settings.redis_url, settings.redis_timeout_s)
        self.tokens = TokenCache(pool, settings.token_cache_s)
        self._http: httpx.AsyncClient = HttpxAiohttpClient(
            base_url=settings.internal_url,
            limits=httpx.Limits(max_connections=settings.internal_connections, keepalive_expiry=60.0),
            timeout=httpx.Timeout(30.0, connect=3.0),
        )
        self.forwarder = Forwarder(settings, self._http)
        self._listener = db.Listener(
            settings.database_url, settings.database_password(), ("terrace_tokens",), self.tokens.on_notify
        )
        self.tokens.trust = lambda: self._listener.connected
        self._checked_at = 0.0
        self._checks: dict[str, bool] = {}

    @classmethod
    async def start(cls, settings: ExternalSettings) -> Edge:
        """Connect to PostgreSQL and begin to listen for changed tokens."""
        pool = await db.create_pool(
            settings.database_url,
            settings.database_password(),
            name=f"external-{settings.node_name}",
            size=settings.database_pool_size,
            timeout_s=settings.database_timeout_s,
        )
        edge = cls(settings, pool)
        edge._listener.start()
        return edge

    async def stop(self) -> None:
        """Close every connection."""
        await self._listener.stop()
        await self._http.aclose()
        await self.placement.close()
        await self.pool.close()

    async def checks(self) -> dict[str, bool]:
        """What this node depends on, by name, looked at no more than once a second."""
        if time.monotonic() - self._checked_at > _CHECK_EVERY_S:
            self._checks = {"postgres": await self._postgres_answers(), "redis": await self.placement.ping()}
            self._checked_at = time.monotonic()
        return self._checks

    async def _postgres_answers(self) -> bool:
        try:
            async with self.pool.acquire(timeout=2.0) as conn:
                return bool(await conn.fetchval("select true", timeout=2.0))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False


def edge_of(request: Request) -> Edge:
    """The node that answers."""
    edge: Edge = request.app.state.edge
    return edge


async def this_edge(request: Request) -> Edge:
    """The same as a dependency; async, because FastAPI calls those that are not in a thread."""
    return edge_of(request)


ThisEdge = Annotated[Edge, Depends(this_edge)]
