"""The node's heartbeat: tells PostgreSQL that it lives and HAProxy how much room it has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import nodes
from terrace.store.nodes import Pulse

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_FRESH_S = 5.0


class Heart:
    """What the node knows of itself, refreshed every ``heartbeat_s`` seconds."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pulse: Pulse | None = None
        self._beaten_at = 0.0
        self._hypervisor_ok = False
        self._storage_ok = False
        self._redis_ok = False
        self.superseded = asyncio.Event()  # a newer incarnation of this node has registered
        self._server: asyncio.Server | None = None

    async def beat_forever(self) -> None:
        """Beat until cancelled; a driver that hangs must not make the node look dead."""
        await asyncio.gather(self._repeat(self._beat), self._repeat(self._look_at_drivers))

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            await asyncio.sleep(self._host.settings.heartbeat_s)

    def checks(self) -> dict[str, bool]:
        """What this node depends on, by name, as seen within the last seconds."""
        return {
            "postgres": time.monotonic() - self._beaten_at < _FRESH_S and not self.superseded.is_set(),
            "hypervisor": self._hypervisor_ok,
            "storage": self._storage_ok and self._host.pool_known,
            "redis": self._redis_ok,
        }

    def ready(self) -> bool:
        """Whether the node can take requests. Redis makes things quicker and is never required."""
        return all(ok for name, ok in self.checks().items() if name != "redis") and not self._host.going_down

    def agent_word(self) -> str:
        """What HAProxy's agent-check is told (configuration manual, ``agent-check``).

        A full node says the least weight and not ``drain``, so that its refusal carries a reason.
        """
        if self._pulse is None:
            return "up 1%"
        if self._pulse.state != "active":
            return "drain"
        return f"ready up {min(100, max(1, round(100 * self._pulse.free_share)))}%"

    async def serve_agent(self) -> None:
        """Answer HAProxy's agent checks until cancelled."""
        settings = self._host.settings
        self._server = await asyncio.start_server(self._answer, settings.agent_host, settings.agent_port)
        async with self._server:
            await self._server.serve_forever()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(f"{self.agent_word()}\n".encode())
            await asyncio.wait_for(writer.drain(), 1.0)
            writer.close()

    async def _beat(self) -> None:
        try:
            async with asyncio.timeout(_FRESH_S), self._host.pool.acquire() as conn:
                pulse = await nodes.beat(conn, self._host.node, self._host.incarnation)
        except DATABASE_ERRORS as exc:
            _log.warning("heartbeat_failed", error=repr(exc))
            return
        if pulse is None:
            _log.error("superseded", incarnation=self._host.incarnation)
            self.superseded.set()
            return
        self._pulse = pulse
        self._beaten_at = time.monotonic()

    async def _look_at_drivers(self) -> None:
        self._hypervisor_ok = await _answers(self._host.hypervisor.ping())
        self._storage_ok = await _answers(self._host.storage.ping())
        self._redis_ok = await self._host.placement.ping()


async def _answers(ping: Awaitable[None]) -> bool:
    try:
        await ping
    except TerraceError:
        return False
    return True
