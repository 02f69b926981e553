"""Storage in a folder: images by their SHA-256, volumes as qcow2 overlays over them, blobs.

::

    images/<sha256>.<format>   volumes/<name>.qcow2   blobs/<name>   marks/<name>   retired/<time>-<file>   lock

Snapshots lie inside the volumes, and only who has a volume open can change them. Backing
files are named relative to the pool, so that a pool can be moved. Several processes may share it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from uuid import UUID

from internal_api.drivers import dir_retired, image_intake, qemu_img
from internal_api.drivers.dir_files import (
    ensure_content,
    has_direct_io,
    keep,
    size_and_sha256,
    size_of_volume,
    virtual_bytes,
)
from internal_api.drivers.dir_locks import VolumeLocks, refuse_open
from internal_api.drivers.dir_marks import Marks
from internal_api.drivers.executor import blocking
from internal_api.drivers.image_header import read_qcow2_header, read_qcow2_snapshots
from internal_api.drivers.pool_files import (
    check_name,
    check_sha256,
    image_in_use,
    looks_ours,
    not_ours,
    pool_lock,
    remove_stale,
    snapshot_missing,
    sync_folder,
    temporary_path,
    too_small,
    translate,
    volume_missing,
)
from internal_api.drivers.protocols import DiskSource, ImageFacts, PoolUsage, StorageCapabilities
from terrace.errors import Permanent, Transient

T = TypeVar("T")
Args = TypeVarTuple("Args")

GIB = 1024**3
FORMATS = ("qcow2", "raw")
FILE_TIMEOUT_S = 60.0
PING_TIMEOUT_S = 5.0
HASH_TIMEOUT_S = 600.0
ROOM_BYTES = 16 * 1024**2  # less free space than this is none: a snapshot alone takes some


class DirStorage:
    """Implements :class:`internal_api.drivers.protocols.Storage`."""

    def __init__(self, root: Path, pool_name: str = "dir") -> None:
        self._root = root.absolute()
        self._name = pool_name
        self._images = self._root / "images"
        self._volumes = self._root / "volumes"
        self._blobs = self._root / "blobs"
        self._retired = self._root / "retired"
        self._lock = self._root / "lock"
        self._marks = Marks(self._root / "marks")
        self._locks = VolumeLocks()
        self._cache = "none"

    @property
    def capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(shared=False, live_snapshots=False)

    @property
    def pool_name(self) -> str:
        return self._name

    def hypervisor_pool(self) -> None:
        return None

    async def connect(self, cloud: UUID) -> None:
        await self._in_thread(self._prepare, cloud)

    async def close(self) -> None:
        """Nothing is held."""

    async def ping(self) -> None:
        await self._in_thread(os.stat, self._images, timeout_s=PING_TIMEOUT_S)

    async def usage(self) -> PoolUsage:
        facts = await self._in_thread(os.statvfs, self._root)
        capacity = facts.f_blocks * facts.f_frsize
        return PoolUsage(capacity, capacity - facts.f_bavail * facts.f_frsize)

    async def check_room(self) -> None:
        facts = await self._in_thread(os.statvfs, self._root)
        if facts.f_bavail * facts.f_frsize < ROOM_BYTES:
            raise Transient("pool_full", "The storage pool is full.")

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        with _os_errors(), temporary_path(self._images) as temporary:
            facts = await image_intake.receive(
                blocking, chunks, temporary, format=format, checksum=checksum, max_bytes=max_bytes
            )
            await self._keep_image(temporary, facts)
        return facts

    async def has_image(self, sha256: str) -> bool:
        return self.image_path(sha256) is not None

    def image_path(self, sha256: str) -> Path | None:
        paths = (self._image(sha256, known) for known in FORMATS)
        return next((path for path in paths if path.exists()), None)

    async def remove_image(self, sha256: str) -> None:
        async with self._locked(exclusive=True):
            await self._in_thread(self._remove_image, sha256)

    async def count_children(self, sha256: str) -> int:
        return await self._in_thread(self._count_children, sha256)

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        image = self._image(image_sha256, image_format)

        async def create(temporary: Path) -> None:
            if await self._in_thread(virtual_bytes, image) > size_gib * GIB:
                raise too_small()
            await qemu_img.create_overlay(
                temporary,
                backing=f"../images/{image.name}",
                backing_format=image.suffix[1:],
                size_bytes=size_gib * GIB,
            )

        async with self._locked(exclusive=False):
            await self._ensure_volume(name, image, size_gib * GIB, create)

    async def ensure_empty_volume(self, name: str, *, size_gib: int) -> None:
        size_bytes = size_gib * GIB
        await self._ensure_volume(name, None, size_bytes, lambda path: qemu_img.create_empty(path, size_bytes))

    async def grow_volume(self, name: str, *, size_gib: int) -> None:
        async with self._ours(name) as path:
            if await self._in_thread(size_of_volume, path) < size_gib * GIB:
                await qemu_img.resize(path, size_gib * GIB)

    async def remove_volume(self, name: str) -> None:
        async with self._locks.of(name):
            await self._in_thread(self._remove, self._volume(name), name)

    async def ensure_snapshot(self, volume: str, snapshot: str) -> None:
        async with self._ours(volume) as path:
            if snapshot not in await self._in_thread(read_qcow2_snapshots, path):
                await qemu_img.create_snapshot(path, check_name(snapshot))

    async def has_snapshot(self, volume: str, snapshot: str) -> bool:
        with _volume_may_be_missing():
            async with self._ours(volume) as path:
                return snapshot in await self._in_thread(read_qcow2_snapshots, path)
        return False

    async def remove_snapshot(self, volume: str, snapshot: str) -> None:
        with _volume_may_be_missing():
            async with self._ours(volume) as path:
                if snapshot in await self._in_thread(read_qcow2_snapshots, path):
                    await qemu_img.remove_snapshot(path, check_name(snapshot))

    async def roll_back(self, volume: str, snapshot: str) -> None:
        async with self._ours(volume) as path:
            if snapshot not in await self._in_thread(read_qcow2_snapshots, path):
                raise snapshot_missing(f"{volume}@{snapshot}")
            await qemu_img.apply_snapshot(path, check_name(snapshot))

    async def capture_image(self, volume: str, snapshot: str) -> ImageFacts:
        async with self._ours(volume) as path:
            size_bytes = (await self._in_thread(read_qcow2_snapshots, path)).get(snapshot)
            if size_bytes is None:
                raise snapshot_missing(f"{volume}@{snapshot}")
            if size_bytes > await self._in_thread(size_of_volume, path):
                raise Permanent("operation_failed", "The snapshot is larger than its volume is now: grow that first.")
            with temporary_path(self._images) as temporary:
                await qemu_img.copy_snapshot(path, check_name(snapshot), temporary, size_bytes)
                size, sha256 = await self._in_thread(size_and_sha256, temporary, timeout_s=HASH_TIMEOUT_S)
                facts = ImageFacts("qcow2", size, size_bytes, sha256)
                await self._keep_image(temporary, facts)
        return facts

    async def ensure_blob(self, name: str, content: bytes) -> None:
        await self._in_thread(self._ensure_blob, check_name(name), content)

    async def remove_blob(self, name: str) -> None:
        await self._in_thread(self._remove, self._blobs / check_name(name), name)

    async def list_volumes(self) -> Sequence[str]:
        return await self._in_thread(self._list)

    async def is_ours(self, name: str) -> bool:
        return await self._in_thread(self._is_ours, check_name(name))

    async def retire(self, name: str) -> None:
        async with self._locks.of(name):
            await self._in_thread(self._retire, check_name(name))

    async def purge_retired(self, older_than_s: float) -> int:
        return await self._in_thread(dir_retired.purge, self._retired, older_than_s)

    def volume_source(self, name: str) -> DiskSource:
        return DiskSource("file", str(self._volume(name)), "qcow2", cache=self._cache)

    def blob_source(self, name: str) -> DiskSource:
        path = self._blobs / check_name(name)
        return DiskSource("file", str(path), "raw", cache="writeback", readonly=True)

    def _image(self, sha256: str, format: str) -> Path:
        if format not in FORMATS:
            raise Permanent("image_invalid", "An image's format is qcow2 or raw.")
        return self._images / f"{check_sha256(sha256)}.{format}"

    def _volume(self, name: str) -> Path:
        return self._volumes / f"{check_name(name)}.qcow2"

    def _prepare(self, cloud: UUID) -> None:
        for folder in (self._images, self._volumes, self._blobs, self._retired):
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder)
        self._marks.open(cloud, self._list())
        # QEMU refuses cache=none on a file system without direct I/O, such as tmpfs
        self._cache = "none" if has_direct_io(self._root) else "writeback"

    async def _keep_image(self, temporary: Path, facts: ImageFacts) -> None:
        await self._in_thread(keep, temporary, self._image(facts.sha256, facts.format))

    async def _ensure_volume(
        self, name: str, image: Path | None, size_bytes: int, create: Callable[[Path], Awaitable[None]]
    ) -> None:
        path = self._volume(name)
        async with self._locks.of(name):
            existing = await self._in_thread(self._find_size, name, image)
            if existing is not None:
                if existing < size_bytes:
                    await qemu_img.resize(path, size_bytes)
                return
            with _os_errors(), temporary_path(self._volumes) as temporary:
                await create(temporary)
                await self._in_thread(self._marks.set, name)
                # A link never replaces a volume that another process has made meanwhile: it may hold data.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
                await self._in_thread(sync_folder, self._volumes)

    def _find_size(self, name: str, image: Path | None) -> int | None:
        """Virtual bytes of the volume, None when there is none; raises Permanent when it is another's."""
        try:
            header = read_qcow2_header(self._volume(name))
        except FileNotFoundError:
            return None
        if not self._marks.is_ours(name):
            raise not_ours(name)
        if header is None or (image is not None and Path(header.backing_file or "").name != image.name):
            raise Permanent("operation_failed", "The VM's disk exists with another content.", internal=name)
        return header.virtual_bytes

    def _ensure_blob(self, name: str, content: bytes) -> None:
        path = self._blobs / name
        if path.exists() and not self._marks.is_ours(name):
            raise not_ours(name)
        self._marks.set(name)
        ensure_content(path, content)

    def _remove(self, path: Path, name: str) -> None:
        """What is not ours stays; its absence here is what was asked for."""
        if not self._marks.is_ours(name):
            return
        with contextlib.suppress(FileNotFoundError):
            refuse_open(path)
            path.unlink()
            sync_folder(path.parent)
        self._marks.remove(name)

    def _is_ours(self, name: str) -> bool:
        return self._file(name) is not None and self._marks.is_ours(name)

    def _retire(self, name: str) -> None:
        path = self._file(name)
        if path is None:
            return
        if not self._marks.is_ours(name):
            raise not_ours(name)
        refuse_open(path)
        dir_retired.put_away(path, self._retired)
        self._marks.remove(name)

    def _file(self, name: str) -> Path | None:
        """Of a volume or a blob, whichever is there."""
        return next((path for path in (self._volume(name), self._blobs / name) if path.exists()), None)

    def _remove_image(self, sha256: str) -> None:
        path = self.image_path(sha256)
        if path is None:
            return
        count = self._count_children(sha256)
        if count:
            raise image_in_use(count)
        path.unlink()
        sync_folder(self._images)

    def _count_children(self, sha256: str) -> int:
        path = self.image_path(sha256)
        if path is None:
            return 0
        count = 0
        for volume in (*self._volumes.glob("*.qcow2"), *self._retired.glob("*.qcow2")):
            with contextlib.suppress(FileNotFoundError):
                header = read_qcow2_header(volume)
                if header is not None and Path(header.backing_file or "").name == path.name:
                    count += 1
        return count

    def _list(self) -> Sequence[str]:
        volumes = [path.stem for path in self._volumes.glob("*.qcow2")]
        blobs = [path.name for path in self._blobs.iterdir()]
        return sorted(filter(looks_ours, volumes + blobs))

    @contextlib.asynccontextmanager
    async def _ours(self, name: str) -> AsyncIterator[Path]:
        """A volume of ours, for as long as it is worked on; raises Permanent ``volume_missing``."""
        path = self._volume(name)
        async with self._locks.of(name):
            if not await self._in_thread(self._is_ours, name) or not path.exists():
                raise volume_missing(name)
            with _os_errors():
                yield path

    @contextlib.asynccontextmanager
    async def _locked(self, *, exclusive: bool) -> AsyncIterator[None]:
        """No image goes while a volume is being made from it."""
        with _os_errors():
            async with pool_lock(self._lock, exclusive=exclusive):
                yield

    async def _in_thread(self, fn: Callable[[*Args], T], *args: *Args, timeout_s: float = FILE_TIMEOUT_S) -> T:
        with _os_errors():
            return await blocking.run(fn, *args, timeout_s=timeout_s)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translate(error) from error


@contextlib.contextmanager
def _volume_may_be_missing() -> Iterator[None]:
    try:
        yield
    except Permanent as error:
        if error.code != "volume_missing":
            raise
