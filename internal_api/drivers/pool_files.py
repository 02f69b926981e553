"""Files of a pool: names that are safe, writes that are whole or absent, locks that die with their holder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from terrace.errors import Permanent, TerraceError, Transient

LOCK_TIMEOUT_S = 10.0
_POLL_S = 0.02
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-(root|seed|data)")


def check_name(name: str) -> str:
    """The name, safe as a file name; raises Permanent for anything else (``..``, slashes, …)."""
    if not _NAME.fullmatch(name):
        raise Permanent("operation_failed", "A volume's name is not valid.", internal=repr(name[:200]))
    return name


def looks_ours(name: str) -> bool:
    """Whether a Terrace cloud gives volumes and blobs names like this one."""
    return _OURS.fullmatch(name) is not None


def check_sha256(sha256: str) -> str:
    """The digest, 64 lower-case hexadecimal digits; raises Permanent otherwise."""
    if not _SHA256.fullmatch(sha256):
        raise Permanent("image_invalid", "An image's checksum is not valid.", internal=repr(sha256[:200]))
    return sha256


def translate(error: OSError) -> TerraceError:
    """A full disk or quota is ``pool_full``; any other trouble may pass too."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Transient("pool_full", "The storage pool is full.", internal=str(error))
    return Transient("service_unavailable", "The storage pool does not work.", internal=str(error))


def volume_missing(internal: str) -> Permanent:
    """The one error of a volume that is not there."""
    return Permanent("volume_missing", "The volume is missing in the storage pool.", internal=internal)


def snapshot_missing(internal: str) -> Permanent:
    """The one error of a snapshot that is not there."""
    return Permanent("snapshot_missing", "The snapshot is missing in the storage pool.", internal=internal)


def not_ours(name: str) -> Permanent:
    """The one error of a name that is taken."""
    return Permanent("operation_failed", "The storage pool has somebody else's disk of this name.", internal=name)


def image_in_use(count: int) -> Permanent:
    """The one error of an image with clones."""
    return Permanent("image_in_use", f"{count} volume(s) are cloned from this image.", extra={"volumes": count})


def too_small() -> Permanent:
    """The one error of a volume that can't hold its image."""
    return Permanent("size_out_of_range", "The disk is smaller than its image.")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last through a loss of power."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def temporary_path(folder: Path) -> Iterator[Path]:
    """A path in ``folder`` for a file not yet whole, removed on the way out.

    It is locked meanwhile, so that :func:`remove_stale` of a process that shares the pool leaves it alone.
    """
    path = folder / f".tmp-{uuid.uuid4().hex}"
    lock = folder / f"{path.name}.lock"
    fd = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield path
    finally:
        path.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        os.close(fd)


def remove_stale(folder: Path) -> None:
    """Remove temporary files whose process is gone."""
    for lock in folder.glob(".tmp-*.lock"):
        with contextlib.suppress(OSError):
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.with_suffix("").unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            finally:
                os.close(fd)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by exactly ``content``, durably; raises OSError."""
    with temporary_path(path.parent) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


@contextlib.asynccontextmanager
async def pool_lock(path: Path, *, exclusive: bool) -> AsyncIterator[None]:
    """Shared or exclusive lock between all processes that use a pool; raises Transient when it takes long."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = asyncio.get_running_loop().time() + LOCK_TIMEOUT_S
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    raise Transient("service_unavailable", "The storage pool is busy.") from None
                await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)
