"""Storage in a folder: images by their SHA-256, volumes as qcow2 overlays over them, blobs.

::

    images/<sha256>.<format>   volumes/<name>.qcow2   blobs/<name>   lock

Backing files are named relative to the pool, so that a pool can be moved. Several processes may share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple

from internal_api.drivers import qemu_img
from internal_api.drivers.executor import blocking
from internal_api.drivers.image_header import HEAD_BYTES, check_image, read_qcow2_header
from internal_api.drivers.pool_files import (
    check_name,
    check_sha256,
    pool_lock,
    remove_stale,
    sync_folder,
    temporary_path,
    translate,
    write_whole,
)
from internal_api.drivers.protocols import DiskSource, ImageFacts, PoolUsage
from terrace.errors import Permanent, Transient

T = TypeVar("T")
Args = TypeVarTuple("Args")

GIB = 1024**3
FORMATS = ("qcow2", "raw")
FILE_TIMEOUT_S = 60.0
PING_TIMEOUT_S = 5.0
# what is handed to a thread at once: hops cost more than bytes
WRITE_BYTES = 4 * 1024**2


class DirStorage:
    """Implements :class:`internal_api.drivers.protocols.Storage`."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._images = self._root / "images"
        self._volumes = self._root / "volumes"
        self._blobs = self._root / "blobs"
        self._lock = self._root / "lock"
        self._cache = "none"

    async def connect(self) -> None:
        await self._in_thread(self._prepare)

    async def close(self) -> None:
        """Nothing is held."""

    async def ping(self) -> None:
        await self._in_thread(os.stat, self._images, timeout_s=PING_TIMEOUT_S)

    async def usage(self) -> PoolUsage:
        facts = await self._in_thread(os.statvfs, self._root)
        capacity = facts.f_blocks * facts.f_frsize
        return PoolUsage(capacity, capacity - facts.f_bavail * facts.f_frsize)

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        with _os_errors(), temporary_path(self._images) as temporary:
            size, sha256, head = await self._receive(chunks, temporary, max_bytes)
            if checksum is not None and checksum.lower().removeprefix("sha256:") != sha256:
                raise Permanent("checksum_mismatch", f"The image's SHA-256 is {sha256}, which is not the one given.")
            found, virtual_bytes = check_image(head, size, format)
            if found == "qcow2":
                await qemu_img.check(temporary)
            target = self._image(sha256, found)
            if not target.exists():
                temporary.chmod(0o444)
                temporary.rename(target)
                await self._in_thread(sync_folder, self._images)
        return ImageFacts(format=found, size_bytes=size, virtual_bytes=virtual_bytes, sha256=sha256)

    async def has_image(self, sha256: str) -> bool:
        return self.image_path(sha256) is not None

    def image_path(self, sha256: str) -> Path | None:
        paths = (self._image(sha256, known) for known in FORMATS)
        return next((path for path in paths if path.exists()), None)

    async def remove_image(self, sha256: str) -> None:
        async with self._locked(exclusive=True):
            await self._in_thread(self._remove_image, sha256)

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        path, image = self._volume(name), self._image(image_sha256, image_format)
        size_bytes = size_gib * GIB
        async with self._locked(exclusive=False):
            existing = await self._in_thread(self._find_volume_size, path, image)
            if existing is None:
                await self._create_volume(path, image, size_bytes)
            elif existing < size_bytes:
                await qemu_img.resize(path, size_bytes)

    async def remove_volume(self, name: str) -> None:
        await self._in_thread(_unlink, self._volume(name))

    async def ensure_blob(self, name: str, content: bytes) -> None:
        await self._in_thread(_ensure_content, self._blobs / check_name(name), content)

    async def remove_blob(self, name: str) -> None:
        await self._in_thread(_unlink, self._blobs / check_name(name))

    async def list_volumes(self) -> Sequence[str]:
        return await self._in_thread(self._list)

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

    def _prepare(self) -> None:
        for folder in (self._images, self._volumes, self._blobs):
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder)
        # QEMU refuses cache=none on a file system without direct I/O, such as tmpfs
        self._cache = "none" if _has_direct_io(self._root) else "writeback"

    async def _receive(self, chunks: AsyncIterator[bytes], path: Path, max_bytes: int) -> tuple[int, str, bytes]:
        """Write the stream; its size, SHA-256 and first bytes."""
        digest, size, head, waiting = hashlib.sha256(), 0, b"", bytearray()
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise Permanent("image_too_large", f"The image is larger than {max_bytes} bytes.")
                waiting += chunk
                if len(head) < HEAD_BYTES:
                    head += chunk[: HEAD_BYTES - len(head)]
                if len(waiting) >= WRITE_BYTES:
                    await self._in_thread(_write, file, bytes(waiting), digest)
                    waiting.clear()
            await self._in_thread(_write, file, bytes(waiting), digest)
            await self._in_thread(_flush, file)
        return size, digest.hexdigest(), head

    async def _create_volume(self, path: Path, image: Path, size_bytes: int) -> None:
        virtual_bytes = await self._in_thread(_virtual_bytes, image)
        if virtual_bytes > size_bytes:
            raise Permanent("size_out_of_range", "The disk is smaller than its image.")
        with _os_errors(), temporary_path(self._volumes) as temporary:
            await qemu_img.create_overlay(
                temporary,
                backing=f"../images/{image.name}",
                backing_format=image.suffix[1:],
                size_bytes=size_bytes,
            )
            # A link never replaces a volume that another process has made meanwhile: it may hold data.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            await self._in_thread(sync_folder, self._volumes)

    def _find_volume_size(self, path: Path, image: Path) -> int | None:
        """Virtual bytes of the volume, None when there is none; raises Permanent when it is another's."""
        try:
            header = read_qcow2_header(path)
        except FileNotFoundError:
            return None
        if header is None or Path(header.backing_file or "").name != image.name:
            raise Permanent("operation_failed", "The VM's disk exists with another content.", internal=path.name)
        return header.virtual_bytes

    def _remove_image(self, sha256: str) -> None:
        path = self.image_path(sha256)
        if path is None:
            return
        for volume in self._volumes.glob("*.qcow2"):
            with contextlib.suppress(FileNotFoundError):
                header = read_qcow2_header(volume)
                if header is not None and Path(header.backing_file or "").name == path.name:
                    raise Permanent("image_in_use", "VMs use disks cloned from this image.")
        path.unlink()
        sync_folder(self._images)

    def _list(self) -> Sequence[str]:
        volumes = [path.stem for path in self._volumes.glob("*.qcow2")]
        blobs = [path.name for path in self._blobs.iterdir() if not path.name.startswith(".")]
        return sorted(volumes + blobs)

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


def _write(file: BinaryIO, content: bytes, digest: hashlib._Hash) -> None:
    file.write(content)
    digest.update(content)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _ensure_content(path: Path, content: bytes) -> None:
    try:
        same = path.read_bytes() == content
    except OSError:  # absent, or libvirt has given it to QEMU's user
        same = False
    if not same:
        write_whole(path, content)


def _virtual_bytes(image: Path) -> int:
    try:
        header = read_qcow2_header(image) if image.suffix == ".qcow2" else None
        return header.virtual_bytes if header is not None else image.stat().st_size
    except FileNotFoundError:
        # the image step fetches it from another node
        raise Transient("service_unavailable", "The image is not on this node yet.", internal=image.name) from None


def _has_direct_io(folder: Path) -> bool:
    with temporary_path(folder) as path:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600))
        except OSError:
            return False
        return True
