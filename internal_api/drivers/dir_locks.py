"""Whether QEMU has a file open, as told by the locks that it takes, and the order of what is done to one volume.

QEMU holds locks of open file descriptions on bytes 100 and up of its images:
https://gitlab.com/qemu-project/qemu/-/blob/master/block/file-posix.c (``RAW_LOCK_PERM_BASE``)
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import weakref
from pathlib import Path

from terrace.errors import Transient

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2)
_FIRST, _COUNT = 100, 200


def refuse_open(path: Path) -> None:
    """Transient ``volume_in_use`` while somebody has it open; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST, _COUNT, 0)
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    finally:
        os.close(fd)
    if kind != fcntl.F_UNLCK:
        raise Transient("volume_in_use", "The volume is in use.", internal=path.name)


class VolumeLocks:
    """A lock for each volume. One process owns a folder pool, so these need not reach farther."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """To be held while a volume is looked at and changed."""
        return self._locks.setdefault(name, asyncio.Lock())
