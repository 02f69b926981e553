"""Snapshots of volumes in an RBD pool. Blocking; works while a guest has the volume open, but for going back."""

from __future__ import annotations

import contextlib

from internal_api.drivers.ceph_binding import rbd
from internal_api.drivers.pool_files import snapshot_missing
from internal_api.drivers.rbd_marks import RbdPool


def ensure(pool: RbdPool, volume: str, snapshot: str) -> None:
    """One that is there already stays as it is."""
    with pool.ours(volume) as image:
        if not image.snap_exists(snapshot):
            with contextlib.suppress(rbd.ImageExists):  # its answer was late
                image.create_snap(snapshot)


def has(pool: RbdPool, volume: str, snapshot: str) -> bool:
    """False also when the volume is absent."""
    with contextlib.suppress(rbd.ImageNotFound), pool.opened(volume) as image:
        return bool(image.snap_exists(snapshot))
    return False


def remove(pool: RbdPool, volume: str, snapshot: str) -> None:
    """The snapshot or its volume may be absent."""
    with contextlib.suppress(rbd.ImageNotFound), pool.opened(volume) as image:
        if pool.is_ours(image) and image.snap_exists(snapshot):
            image.remove_snap(snapshot)


def roll_back(pool: RbdPool, volume: str, snapshot: str) -> None:
    """Content and size as they were. After an interruption the volume is a mixture until it is done again."""
    with pool.ours(volume) as image:
        pool.refuse_watched(image, volume)
        if not image.snap_exists(snapshot):
            raise snapshot_missing(f"{volume}@{snapshot}")
        image.rollback_to_snap(snapshot)
