"""Storage in a pool of a Ceph cluster, which every node shares: golden images, linked clones, snapshots.

::

    image-<sha256>   with the snapshot ``golden``, the parent of volumes   import-<node>-…   an image in the making
    <name>           a volume or blob                                      terrace.<cloud>   see ``rbd_marks``

librbd is called in threads of an executor of its own, so that a cluster that hangs can't hold up other drivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from internal_api.drivers import (
    ceph_keyring,
    image_intake,
    qemu_img,
    rbd_copy,
    rbd_images,
    rbd_removal,
    rbd_snapshots,
    rbd_state,
    rbd_volumes,
)
from internal_api.drivers.ceph_binding import rados
from internal_api.drivers.ceph_connection import CephConnection, CephSettings, Session
from internal_api.drivers.ceph_errors import number_of, pool_full, unavailable
from internal_api.drivers.executor import BlockingExecutor
from internal_api.drivers.pool_files import check_sha256, looks_ours, remove_stale, temporary_path, translate
from internal_api.drivers.protocols import DiskSource, ImageFacts, PoolUsage, SharedPool, StorageCapabilities
from internal_api.drivers.rbd_marks import LOCK_WAIT_S, RbdPool
from internal_api.drivers.rbd_names import new_import_name, volume_name
from terrace import log
from terrace.errors import Permanent, TerraceError, Transient

T = TypeVar("T")

_log = log.get(__name__)
GIB = 1024**3
LONG_TIMEOUT_S = 600.0  # of calls that take as long as a volume is large; what they consist of is bounded as usual
VOLUME_TIMEOUT_S = 12 * 3600.0  # of those that would begin anew after it, and might never end


class RbdStorage:
    """Implements :class:`internal_api.drivers.protocols.Storage`."""

    def __init__(self, settings: CephSettings, *, node: str, staging: Path) -> None:
        self._settings = settings
        self._node = node
        self._staging = staging.absolute()
        self._executor = BlockingExecutor(code="storage_unavailable")
        self._connection = CephConnection(settings)
        self._cloud = ""
        self._prepared: Session | None = None
        self._clean = False
        self._cleaning: asyncio.Task[None] | None = None
        self._importing: set[str] = set()
        # connecting takes one bound, the call itself another
        self._call_s = 2 * settings.timeout_s + 1
        self._locking_s = self._call_s + LOCK_WAIT_S

    @property
    def capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(shared=True, live_snapshots=True)

    @property
    def pool_name(self) -> str:
        return self._settings.pool

    def hypervisor_pool(self) -> SharedPool:
        fsid, monitors = self._connection.identity()
        return SharedPool(
            name=self._settings.pool,
            hosts=monitors,
            username=self._settings.user,
            secret_uuid=self._secret_uuid(fsid),
            key=ceph_keyring.read_key(self._settings.keyring, self._settings.user),
        )

    async def connect(self, cloud: UUID) -> None:
        self._cloud = str(cloud)
        await self._executor.run(self._prepare_staging, timeout_s=self._call_s)
        await self._executor.run(self._connection.check, timeout_s=self._call_s)
        try:
            await self._remove_leftovers()
        except Transient as error:
            _log.warning("storage_away", pool=self.pool_name, error=str(error))

    async def close(self) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.wait([self._cleaning])
        with contextlib.suppress(Transient):
            await self._executor.run(self._connection.close, timeout_s=self._call_s)

    async def ping(self) -> None:
        await self._in_session(rbd_state.ping)
        if not self._clean and (self._cleaning is None or self._cleaning.done()):
            self._cleaning = asyncio.create_task(self._clean_up())  # takes long, and a heartbeat waits for us

    async def usage(self) -> PoolUsage:
        return await self._in_session(rbd_state.usage)

    async def check_room(self) -> None:
        await self._call(lambda _: None, needs_room=True)

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        await self.check_room()  # before all is received for nothing
        try:
            with temporary_path(self._staging) as staged:
                facts = await image_intake.receive(
                    self._executor, chunks, staged, format=format, checksum=checksum, max_bytes=max_bytes
                )
                if not await self.has_image(facts.sha256):
                    async with self._image_in_the_making(facts.virtual_bytes) as name:
                        await self._fill(staged, facts.format, name)
                        await self._finish(name, facts.sha256)
        except OSError as error:
            raise translate(error) from error
        return facts

    async def has_image(self, sha256: str) -> bool:
        check_sha256(sha256)
        return await self._call(lambda pool: rbd_images.has(pool, sha256))

    def image_path(self, sha256: str) -> Path | None:
        check_sha256(sha256)
        return None  # every node has it already

    async def remove_image(self, sha256: str) -> None:
        check_sha256(sha256)
        await self._call(
            lambda pool: rbd_removal.remove_image(pool, sha256), key=f"image-{sha256}", timeout_s=LONG_TIMEOUT_S
        )

    async def count_children(self, sha256: str) -> int:
        check_sha256(sha256)
        return await self._call(
            lambda pool: rbd_removal.count_children(pool, sha256), key=f"image-{sha256}", timeout_s=LONG_TIMEOUT_S
        )

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        check_sha256(image_sha256)
        await self._change(name, lambda pool: rbd_volumes.ensure_clone(pool, name, image_sha256, size_gib * GIB))

    async def ensure_empty_volume(self, name: str, *, size_gib: int) -> None:
        await self._change(name, lambda pool: rbd_volumes.ensure_empty(pool, name, size_gib * GIB))

    async def grow_volume(self, name: str, *, size_gib: int) -> None:
        await self._change(name, lambda pool: rbd_volumes.grow(pool, name, size_gib * GIB))

    async def remove_volume(self, name: str) -> None:
        await self._change(name, lambda pool: rbd_removal.remove(pool, name), timeout_s=VOLUME_TIMEOUT_S)

    async def ensure_snapshot(self, volume: str, snapshot: str) -> None:
        await self._change(volume, lambda pool: rbd_snapshots.ensure(pool, volume, snapshot), needs_room=True)

    async def has_snapshot(self, volume: str, snapshot: str) -> bool:
        return await self._change(volume, lambda pool: rbd_snapshots.has(pool, volume, snapshot))

    async def remove_snapshot(self, volume: str, snapshot: str) -> None:
        await self._change(volume, lambda pool: rbd_snapshots.remove(pool, volume, snapshot))

    async def roll_back(self, volume: str, snapshot: str) -> None:
        await self._change(
            volume, lambda pool: rbd_snapshots.roll_back(pool, volume, snapshot), timeout_s=VOLUME_TIMEOUT_S
        )

    async def capture_image(self, volume: str, snapshot: str) -> ImageFacts:
        size = await self._call(lambda pool: rbd_copy.size_of(pool, volume_name(volume), snapshot))
        async with self._image_in_the_making(size) as name:
            copy = rbd_copy.SnapshotCopy(volume, snapshot, name)
            while await self._call(copy.step, key=name, timeout_s=LONG_TIMEOUT_S):
                pass
            await self._finish(name, copy.sha256)
        return ImageFacts(format="raw", size_bytes=size, virtual_bytes=size, sha256=copy.sha256)

    async def ensure_blob(self, name: str, content: bytes) -> None:
        await self._change(name, lambda pool: rbd_volumes.ensure_content(pool, name, content))

    async def remove_blob(self, name: str) -> None:
        await self.remove_volume(name)

    async def list_volumes(self) -> Sequence[str]:
        return sorted(name for name in await self._call(rbd_state.names) if looks_ours(name))

    async def is_ours(self, name: str) -> bool:
        return await self._change(name, lambda pool: rbd_volumes.is_ours(pool, name))

    async def retire(self, name: str) -> None:
        await self._change(name, lambda pool: rbd_removal.retire(pool, name))

    async def purge_retired(self, older_than_s: float) -> int:
        await self._remove_leftovers()
        return await self._call(lambda pool: rbd_removal.purge(pool, older_than_s), timeout_s=LONG_TIMEOUT_S)

    def volume_source(self, name: str) -> DiskSource:
        return self._source(name, readonly=False)

    def blob_source(self, name: str) -> DiskSource:
        return self._source(name, readonly=True)

    def _source(self, name: str, *, readonly: bool) -> DiskSource:
        path = f"{self._settings.pool}/{volume_name(name)}"
        fsid, monitors = self._connection.identity()
        return DiskSource(
            "network",
            path,
            "raw",
            hosts=monitors,
            secret_uuid=self._secret_uuid(fsid),
            username=self._settings.user,
            cache="writeback",
            readonly=readonly,
        )

    def _secret_uuid(self, fsid: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{fsid}/{self._settings.user}"))

    @contextlib.asynccontextmanager
    async def _image_in_the_making(self, size_bytes: int) -> AsyncIterator[str]:
        """The name of an image to be filled and finished; whatever is left of it at the end is removed."""
        name = new_import_name(self._node)
        self._importing.add(name)
        try:
            await self._call(lambda pool: rbd_images.begin(pool, name, size_bytes), key=name, needs_room=True)
            try:
                yield name
            except BaseException:
                with contextlib.suppress(Transient):  # then it is a leftover
                    await self._call(lambda pool: rbd_images.abandon(pool, name), key=name, timeout_s=LONG_TIMEOUT_S)
                raise
        finally:
            self._importing.discard(name)
            self._clean = False

    async def _finish(self, name: str, sha256: str) -> None:
        await self._call(lambda pool: rbd_images.finish(pool, name, sha256), key=name, timeout_s=self._locking_s)

    async def _fill(self, staged: Path, image_format: str, name: str) -> None:
        """Bounded by the tool's own timeouts, but for a full pool, in which it would wait for room."""
        target = rbd_state.qemu_name(self._settings, name)
        filling = asyncio.create_task(qemu_img.fill(staged, image_format, target))
        try:
            while not (await asyncio.wait([filling], timeout=self._settings.timeout_s))[0]:
                if await self._is_known_full():
                    raise pool_full()
            await filling
        except Transient as error:
            if error.code == "pool_full" or await self._is_known_full():
                raise pool_full(error.internal) from error
            raise unavailable(error.internal or "") from error
        finally:
            filling.cancel()  # ends the tool
            await asyncio.wait([filling])

    async def _is_known_full(self) -> bool:
        try:
            return await self._in_session(rbd_state.is_full)
        except Transient:  # the cluster can't tell now
            return False

    async def _change(
        self,
        name: str,
        fn: Callable[[RbdPool], T],
        *,
        timeout_s: float | None = None,
        needs_room: bool = False,
    ) -> T:
        """A call about one volume: no two of them run at the same time."""
        return await self._call(fn, key=volume_name(name), timeout_s=timeout_s, needs_room=needs_room)

    async def _call(
        self,
        fn: Callable[[RbdPool], T],
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        needs_room: bool = False,
    ) -> T:
        def call(session: Session) -> T:
            pool = self._pool(session)
            if needs_room:
                pool.require_room()
            return fn(pool)

        return await self._in_session(call, key=key, timeout_s=timeout_s)

    async def _in_session(
        self, fn: Callable[[Session], T], *, key: str | None = None, timeout_s: float | None = None
    ) -> T:
        def call() -> T:
            with self._connection.session() as session:
                return fn(session)

        return await self._executor.run(call, timeout_s=timeout_s or self._call_s, key=key)

    def _pool(self, session: Session) -> RbdPool:
        def require_room() -> None:
            if rbd_state.is_full(session):
                raise pool_full()

        pool = RbdPool(session.pool, session.client_id, self._cloud, self._node, require_room)
        if self._prepared is not session:
            try:
                pool.prepare()
                self._prepared = session
            except rados.Error as error:
                if number_of(error) not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        return pool

    def _prepare_staging(self) -> None:
        try:
            self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_stale(self._staging)
        except OSError as error:
            raise Permanent(
                "operation_failed", "The folder for images on their way can't be used.", internal=str(error)
            ) from error

    async def _clean_up(self) -> None:
        try:
            await self._remove_leftovers()
        except TerraceError as error:  # a later ping tries again
            _log.warning("storage_not_cleaned", pool=self.pool_name, error=str(error))

    async def _remove_leftovers(self) -> None:
        """Remove what imports of this node have left, except those that are at work now."""
        self._clean = True  # until an import ends, or something has to stay
        try:
            for name in await self._call(rbd_removal.imports):
                if name not in self._importing:  # it is noted there before it is listed
                    await self._remove_leftover(name)
        except BaseException:
            self._clean = False
            raise

    async def _remove_leftover(self, name: str) -> None:
        try:
            await self._call(lambda pool: rbd_images.abandon(pool, name), key=name, timeout_s=LONG_TIMEOUT_S)
        except Transient as error:
            if error.code == "storage_unavailable":
                raise
            self._clean = False  # what filled it has not ended yet
