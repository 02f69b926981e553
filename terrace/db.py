"""PostgreSQL: the pool, transactions with their one retry, and listening for wake-ups."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from terrace import log

_log = log.get(__name__)

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    Conn: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Conn = asyncpg.Connection | PoolConnectionProxy
    Pool = asyncpg.Pool
T = TypeVar("T")

_RETRYABLE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_ATTEMPTS = 5


def _dump_jsonb(value: Any) -> bytes:
    return b"\x01" + orjson.dumps(value)  # version byte of jsonb's binary format


def _load_jsonb(value: bytes) -> Any:
    return orjson.loads(value[1:])


async def prepare_connection(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    """Teach a connection jsonb as Python values and addresses as text."""
    await conn.set_type_codec("jsonb", encoder=_dump_jsonb, decoder=_load_jsonb, schema="pg_catalog", format="binary")
    for kind in ("inet", "cidr"):
        await conn.set_type_codec(kind, encoder=str, decoder=str, schema="pg_catalog", format="text")


async def _connect(*args: Any, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """A connection for the pool; ConnectionError when there is no server.

    A server that was stopped has taken its socket with it, which asyncpg tells as FileNotFoundError.
    """
    try:
        return await asyncpg.connect(*args, **options)
    except FileNotFoundError as exc:
        raise ConnectionRefusedError("PostgreSQL does not run") from exc


async def _keep_session(_: object) -> None:
    """Reset nothing when a connection goes back to its pool (asyncpg has rolled back what was open).

    asyncpg would send a query for that, each time; but nobody here sets, listens or locks for a session.
    """


async def create_pool(
    url: str,
    password: str | None,
    *,
    name: str,
    size: int,
    timeout_s: float,
    relaxed_commit: bool = False,
    generic_plans: bool = False,
) -> Pool:
    """A pool of at most ``size`` connections, each statement bounded by ``timeout_s`` seconds.

    ``relaxed_commit`` acknowledges commits before they reach the disk: for progress that may be
    lost in a crash of PostgreSQL because doing the step again is harmless. ``generic_plans`` plans each
    statement once for all values: for statements that find their rows by key.
    """
    return await asyncpg.create_pool(
        url,
        password=password,
        min_size=1,
        max_size=size,
        timeout=timeout_s,
        command_timeout=timeout_s,
        connect=_connect,
        init=prepare_connection,
        reset=_keep_session,
        server_settings={
            "application_name": name,
            "synchronous_commit": "off" if relaxed_commit else "on",
            "idle_in_transaction_session_timeout": "30s",
            "plan_cache_mode": "force_generic_plan" if generic_plans else "auto",
            "jit": "off",
        },
    )


async def in_transaction(pool: Pool, work: Callable[[Conn], Awaitable[T]]) -> T:
    """Run ``work`` in one transaction, again after a serialization failure or a deadlock."""

    async def in_one(conn: Conn) -> T:
        async with conn.transaction():
            return await work(conn)

    return await in_statement(pool, in_one)


async def in_statement(pool: Pool, work: Callable[[Conn], Awaitable[T]]) -> T:
    """Run ``work``, which is one statement; serialization failures and deadlocks are retried here only."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with pool.acquire() as conn:
                return await work(conn)
        except _RETRYABLE:
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")


class Listener:
    """One connection that listens to channels and comes back by itself.

    ``callback(channel, payload)`` is called for each notification, and with the payload ``None`` for
    every channel after a (re)connection: what was missed must then be looked up.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        channels: tuple[str, ...],
        callback: Callable[[str, str | None], None],
    ) -> None:
        self._url = url
        self._password = password
        self._channels = channels
        self._callback = callback
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as exc:
                _log.warning("listener_lost", error=repr(exc))
            self.connected = False
            await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        conn = await asyncpg.connect(self._url, password=self._password, timeout=5.0)
        lost = asyncio.Event()
        try:
            conn.add_termination_listener(lambda _: lost.set())
            for channel in self._channels:
                await conn.add_listener(channel, self._on_notify)
            self.connected = True
            for channel in self._channels:
                self._callback(channel, None)
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), 10.0)
                except TimeoutError:
                    await conn.execute("select 1", timeout=5.0)  # notices a half-open connection
        finally:
            await conn.close(timeout=2.0)

    def _on_notify(self, _conn: object, _pid: int, channel: str, payload: object) -> None:
        self._callback(channel, str(payload))
