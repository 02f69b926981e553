"""Copying a snapshot into an image of its own, piece by piece, with the SHA-256 of the content. Blocking.

The copy depends on nothing. librbd could copy by itself, but in one call that nobody can end.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from internal_api.drivers.pool_files import snapshot_missing
from internal_api.drivers.rbd_marks import RbdPool

PIECE_BYTES: Final = 64 * 1024**2
_CHUNK_BYTES: Final = 4 * 1024**2
_ZEROS: Final = bytes(_CHUNK_BYTES)


def size_of(pool: RbdPool, volume: str, snapshot: str) -> int:
    """Bytes of a volume at a snapshot; raises Permanent when either is missing."""
    with pool.ours(volume) as image:
        if not image.snap_exists(snapshot):
            raise snapshot_missing(f"{volume}@{snapshot}")
        image.set_snap(snapshot)
        return int(image.size())


class SnapshotCopy:
    """A copy in the making. Call :meth:`step` until it says that it was the last."""

    def __init__(self, volume: str, snapshot: str, target: str) -> None:
        self._names = (volume, snapshot, target)
        self._digest = hashlib.sha256()
        self._offset = 0

    @property
    def sha256(self) -> str:
        """Of all that was copied."""
        return self._digest.hexdigest()

    def step(self, pool: RbdPool) -> bool:
        """Copy the next piece; whether there are more."""
        volume, snapshot, target_name = self._names
        with (
            pool.opened(volume, snapshot=snapshot, read_only=True) as source,
            pool.opened(target_name) as target,
        ):
            size = int(source.size())
            end = min(self._offset + PIECE_BYTES, size)
            digest = self._digest.copy()
            at = self._offset
            for start, stop in _extents(source, self._offset, end - self._offset):
                _hash_zeros(digest, start - at)
                _copy(source, target, start, stop, digest)
                at = stop
            _hash_zeros(digest, end - at)
            target.flush()
        self._digest, self._offset = digest, end
        return end < size


def _extents(source: Any, offset: int, length: int) -> list[tuple[int, int]]:
    """Where there are data, in order: start and end."""
    found: list[tuple[int, int]] = []

    def note(start: int, size: int, exists: bool) -> None:
        if exists:
            found.append((start, start + size))

    source.diff_iterate(offset, length, None, note)
    return sorted(found)


def _copy(source: Any, target: Any, start: int, stop: int, digest: Any) -> None:
    for offset in range(start, stop, _CHUNK_BYTES):
        chunk = source.read(offset, min(_CHUNK_BYTES, stop - offset))
        digest.update(chunk)
        if chunk != _ZEROS[: len(chunk)]:
            target.write(chunk, offset)


def _hash_zeros(digest: Any, count: int) -> None:
    view = memoryview(_ZEROS)
    while count > 0:
        part = view[: min(count, _CHUNK_BYTES)]
        digest.update(part)
        count -= len(part)
