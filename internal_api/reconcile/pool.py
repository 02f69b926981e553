"""The node's pool: known to the hypervisor, measured, and compared with the records."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from internal_api import metrics
from internal_api.drivers.protocols import PoolUsage, Storage
from internal_api.workflows import clean_pool
from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import nodes, pool_drift

if TYPE_CHECKING:
    from internal_api.host import Host
    from terrace.engine.worker import Worker

_log = log.get(__name__)
_INTRODUCE_EVERY_S: Final = 2.0
_MEASURE_EVERY_S: Final = 15.0
_GIB: Final = 2**30
_KINDS: Final = ("orphan", "missing", "foreign")


async def find_pool_gib(storage: Storage) -> int | None:
    """How much a pool can hold; None when it does not answer."""
    try:
        usage = await storage.usage()
    except TerraceError as exc:
        _log.warning("pool_does_not_answer", error=str(exc))
        return None
    return _size_gib(storage, usage)


def _size_gib(storage: Storage, usage: PoolUsage) -> int:
    """A shared pool is the cloud's own; a folder shares its file system with others."""
    held = 0 if storage.capabilities.shared else usage.used_bytes
    return max((usage.capacity_bytes - held) // _GIB, 1)


class PoolWatch:
    """Looks after the pool of this node; a pool of several nodes is compared by one of them at a time."""

    def __init__(self, host: Host, worker: Worker) -> None:
        self._host = host
        self._worker = worker
        self._introduced = asyncio.Event()
        host.hypervisor.on_reconnect(self._introduced.clear)

    async def introduce(self) -> None:
        """Tell the hypervisor of the pool, now and after each of its restarts."""
        while True:
            try:
                pool = self._host.storage.hypervisor_pool()
                if pool is not None and not self._introduced.is_set():
                    await self._host.hypervisor.ensure_pool(pool)
                self._introduced.set()
                self._host.pool_known = True
            except TerraceError as exc:
                _log.warning("pool_not_introduced", error=str(exc))
            await asyncio.sleep(_INTRODUCE_EVERY_S)

    async def watch(self) -> None:
        """Measure and compare until cancelled."""
        settings = self._host.settings
        while True:
            try:
                await self._measure()
                async with self._host.pool.acquire() as conn:
                    mine = await pool_drift.begin_check(conn, self._host.pool_id, settings.pool_check_s)
                if mine:
                    await compare(self._host)
                    await self._clean()
                    await self._host.storage.purge_retired(settings.retired_kept_s)
                async with self._host.pool.acquire() as conn:
                    counts = await pool_drift.count_by_kind(conn, self._host.pool_id)
                for kind in _KINDS:
                    metrics.POOL_DRIFT.labels(self._host.storage.pool_name, kind).set(counts.get(kind, 0))
            except (*DATABASE_ERRORS, TerraceError) as exc:
                _log.warning("pool_watch_failed", error=repr(exc))
            await asyncio.sleep(min(settings.pool_check_s, _MEASURE_EVERY_S))

    async def _measure(self) -> None:
        storage = self._host.storage
        usage = await storage.usage()
        metrics.POOL_CAPACITY.labels(storage.pool_name).set(usage.capacity_bytes)
        metrics.POOL_USED.labels(storage.pool_name).set(usage.used_bytes)
        # a pool that was silent at the node's start has no size yet, and a cluster grows with its disks
        size_gib = (
            _size_gib(storage, usage) if storage.capabilities.shared and not self._host.settings.disk_gib else None
        )
        async with self._host.pool.acquire() as conn:
            await nodes.record_usage(conn, self._host.pool_id, usage.used_bytes, size_gib)

    async def _clean(self) -> None:
        async with self._host.pool.acquire() as conn:
            names = await pool_drift.list_old_orphans(conn, self._host.pool_id, self._host.settings.orphan_grace_s)
        if not names:
            return
        operation = await clean_pool.begin(self._host, None, names, request_id="pool-watch")
        if operation is not None:
            self._worker.submit(operation)


async def compare(host: Host) -> None:
    """Record how the pool and the rows differ. What comes or goes meanwhile is no difference: all is seen twice."""
    found, expected = await _look(host)
    unknown = found - expected.keys()
    missing = {name for name, needed in expected.items() if needed} - found
    ours = {name for name in sorted(unknown) if await host.storage.is_ours(name)}
    if unknown or missing:
        found, expected = await _look(host)
        unknown &= found - expected.keys()
        missing = {name for name in missing - found if expected.get(name)}
    differences = dict.fromkeys(sorted(missing), "missing")
    differences.update({name: "orphan" if name in ours else "foreign" for name in sorted(unknown)})
    async with host.pool.acquire() as conn:
        await pool_drift.replace(conn, host.pool_id, differences)
    if differences:
        _log.warning("pool_drift", **{kind: list(differences.values()).count(kind) for kind in _KINDS})


async def _look(host: Host) -> tuple[set[str], dict[str, bool]]:
    """What the pool holds, and then what it should hold by the rows (true: for certain)."""
    found = set(await host.storage.list_volumes())
    async with host.pool.acquire() as conn:
        return found, await pool_drift.list_expected(conn, host.pool_id)
