"""One internal node, put together: drivers, worker, watchers; its start and its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Coroutine
from typing import Any

import httpx

from internal_api import change, metrics
from internal_api.drivers.build import build_drivers
from internal_api.drivers.protocols import Storage
from internal_api.host import Host
from internal_api.pulse import Heart
from internal_api.reconcile.housekeeping import keep_house
from internal_api.reconcile.observe import Observer
from internal_api.reconcile.pool import PoolWatch, find_pool_gib
from internal_api.reconcile.ready import ReadyWatch
from internal_api.reconcile.thaw import thaw_after_restart
from internal_api.settings import InternalSettings
from internal_api.workflows import workflows
from terrace import db, log
from terrace.engine.waiters import Waiters
from terrace.engine.worker import Probe, Worker
from terrace.placement import Placement
from terrace.problems import DATABASE_ERRORS
from terrace.store import nodes, operations, pool_drift
from terrace.store.operations import Operation
from terrace.types import PoolId

_log = log.get(__name__)
_STOP_PATIENCE_S = 8.0


class Node:
    """A running internal node. Make it with :meth:`start`."""

    def __init__(self, host: Host, worker_pool: db.Pool, lock_fd: int, probe: Probe | None) -> None:
        self.host = host
        self.heart = Heart(host)
        self.waiters = Waiters(host.pool)
        self.worker = Worker(
            worker_pool,
            host.node,
            host.incarnation,
            workflows(host),
            on_finished=self._operation_ended,
            concurrency=host.settings.worker_concurrency,
            observe_step=metrics.observe_step,
            probe=probe,
            backoff_s=host.settings.retry_backoff_s,
        )
        self._worker_pool = worker_pool
        self._lock_fd = lock_fd
        self._tasks: list[asyncio.Task[None]] = []
        settings = host.settings
        self._listener = db.Listener(
            settings.database_url,
            settings.database_password(),
            (change.wake_channel(host.node),),
            self._on_notify,
        )

    @classmethod
    async def start(cls, settings: InternalSettings, probe: Probe | None = None) -> Node:
        """Lock, connect, register as a new incarnation, and take over the node's live operations.

        Raises SystemExit when another process runs this node.
        """
        lock_fd = _lock(settings)
        password = settings.database_password()
        pool = await db.create_pool(
            settings.database_url,
            password,
            name=f"internal-{settings.node_name}",
            size=settings.database_pool_size,
            timeout_s=settings.database_timeout_s,
            generic_plans=True,
        )
        worker_pool = await db.create_pool(
            settings.database_url,
            password,
            name=f"worker-{settings.node_name}",
            size=settings.database_pool_size,
            timeout_s=settings.database_timeout_s,
            relaxed_commit=True,
            generic_plans=True,
        )
        drivers = build_drivers(settings)
        async with pool.acquire() as conn:
            await drivers.storage.connect(await pool_drift.cloud_id(conn))
        await drivers.hypervisor.connect()
        await drivers.network.connect()
        incarnation, pool_id = await register(settings, pool, drivers.storage)
        host = Host(
            settings=settings,
            pool=pool,
            pool_id=pool_id,
            incarnation=incarnation,
            hypervisor=drivers.hypervisor,
            storage=drivers.storage,
            network=drivers.network,
            placement=Placement(settings.redis_url, settings.redis_timeout_s),
            http=httpx.AsyncClient(timeout=httpx.Timeout(settings.image_timeout_s, connect=5.0)),
            tier_secret=settings.tier_secret(),
        )
        node = cls(host, worker_pool, lock_fd, probe)
        node._begin()
        _log.info("node_started", incarnation=incarnation)
        return node

    def submit(self, op: Operation, *, inserted: bool = True) -> None:
        """Hand a committed operation to this node's worker, if it is this node's.

        One that was not ``inserted`` just now may have ended meanwhile: the worker looks for itself.
        """
        if op.node != self.host.node:
            return
        if inserted:
            self.worker.submit(op)
        else:
            self.worker.wake()

    def interrupted(self, op: Operation) -> None:
        """An operation was superseded by a change that came in here."""
        self.worker.interrupt(op.id)
        self._spawn(self.waiters.look_up([op.id]))

    def release_waiters(self) -> None:
        """Answer waiting requests now: the process has been told to end."""
        self.host.going_down = True
        self.waiters.release_all()

    async def stop(self) -> None:
        """End: steps in hand finish, operations stay live in PostgreSQL, guests go on running."""
        self.release_waiters()
        await self.worker.stop(_STOP_PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.stop()
        await self.host.hypervisor.close()
        await self.host.network.close()
        await self.host.storage.close()
        await self.host.http.aclose()
        await self.host.placement.close()
        await asyncio.wait_for(asyncio.gather(self.host.pool.close(), self._worker_pool.close()), 5.0)
        os.close(self._lock_fd)

    def _begin(self) -> None:
        host = self.host
        ready = ReadyWatch(host)
        observer = Observer(host, self.worker, ready)
        pool = PoolWatch(host, self.worker)
        self.worker.start()
        self._listener.start()
        for coroutine in (
            self.heart.beat_forever(),
            self.heart.serve_agent(),
            observer.follow_events(),
            observer.full_passes(),
            ready.watch(),
            ready.follow_leases(),
            keep_house(host),
            thaw_after_restart(host),
            pool.introduce(),
            pool.watch(),
        ):
            self._spawn(coroutine)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and task.exception() is not None:
            # a node that has lost one of its loops is no node: let the supervisor start it anew
            _log.error("loop_died", exc_info=task.exception())
            os._exit(1)

    async def _operation_ended(self, op: Operation) -> None:
        metrics.observe_operation(op)
        self.waiters.resolve(op)
        if op.origin is None or op.origin == self.host.node:
            return
        try:
            async with self.host.pool.acquire() as conn:
                await operations.notify(conn, change.wake_channel(op.origin), f"done:{op.id}")
        except DATABASE_ERRORS as exc:
            _log.warning("origin_not_told", op=op.id, error=repr(exc))  # it looks for itself, too

    def _on_notify(self, _channel: str, payload: str | None) -> None:
        if payload is None:
            self.worker.wake()
            if len(self.waiters):
                self._spawn(self.waiters.look_up())
        elif payload.startswith("done:"):
            self._spawn(self.waiters.look_up([int(payload[5:])]))
        else:
            self.worker.wake()


async def register(settings: InternalSettings, pool: db.Pool, storage: Storage) -> tuple[int, PoolId]:
    """Record this start and the pool; SystemExit when VMs of the node lie in another pool than it uses now."""
    capacity = settings.capacity(await find_pool_gib(storage))
    shared = storage.capabilities.shared
    async with pool.acquire() as conn, conn.transaction():
        incarnation = await nodes.register(conn, settings.node_name, settings.node_url, capacity)
        pool_id = await nodes.ensure_pool(
            conn,
            storage.pool_name if shared else f"{settings.storage}-{settings.node_name}",
            settings.storage,
            None if shared else settings.node_name,
            capacity,
        )
        elsewhere = await nodes.use_pool(conn, settings.node_name, pool_id)
        if elsewhere:
            raise SystemExit(
                f"{elsewhere} VMs or volumes of node {settings.node_name} lie in another pool than TERRACE_STORAGE="
                f"{settings.storage} means: set it back, or delete them first"
            )
    return incarnation, pool_id


def _lock(settings: InternalSettings) -> int:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(settings.state_dir / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SystemExit(f"node {settings.node_name} runs already: its lock is held by another process") from None
    return fd
