"""Volumes and blobs in an RBD pool: linked clones, empty images, small images with a content. Blocking.

Raises librbd's errors, and the driver's own where it knows better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internal_api.drivers import rbd_images
from internal_api.drivers.ceph_binding import rbd
from internal_api.drivers.pool_files import not_ours, too_small
from internal_api.drivers.rbd_marks import IMAGE_MARK, MARK, RbdPool, metadata
from internal_api.drivers.rbd_names import GOLDEN, image_name
from terrace.errors import Permanent, Transient


def ensure_clone(pool: RbdPool, name: str, sha256: str, size_bytes: int) -> None:
    """A clone of a golden image, at least ``size_bytes`` large."""

    def make() -> None:
        try:
            rbd.RBD().clone(pool.io, image_name(sha256), GOLDEN, pool.io, name)
        except rbd.ImageNotFound:
            if not rbd_images.repair(pool, sha256):
                raise no_image(sha256) from None
            rbd.RBD().clone(pool.io, image_name(sha256), GOLDEN, pool.io, name)

    def finish(volume: Any, is_new: bool) -> None:
        if metadata(volume, IMAGE_MARK) != sha256:
            raise Permanent("operation_failed", "The VM's disk exists with another content.", internal=name)
        if is_new and volume.size() > size_bytes:
            raise too_small()
        _grow(pool, volume, size_bytes)

    _ensure(pool, name, make, finish, inherits_mark=True)


def ensure_empty(pool: RbdPool, name: str, size_bytes: int) -> None:
    """A sparse image, at least ``size_bytes`` large."""
    _ensure(
        pool,
        name,
        lambda: rbd.RBD().create(pool.io, name, size_bytes, old_format=False),
        lambda volume, _: _grow(pool, volume, size_bytes),
    )


def ensure_content(pool: RbdPool, name: str, content: bytes) -> None:
    """An image with exactly these bytes."""

    def finish(blob: Any, is_new: bool) -> None:
        if blob.size() == len(content) and blob.read(0, len(content)) == content:
            return
        if not is_new:
            pool.require_room()
        if blob.size() != len(content):
            blob.resize(len(content))
        blob.write(content, 0)
        blob.flush()

    def make() -> None:
        # written once and then only read: locks and object maps would cost more than the content
        features = rbd.RBD_FEATURE_LAYERING
        rbd.RBD().create(pool.io, name, len(content), old_format=False, features=features)

    _ensure(pool, name, make, finish)


def grow(pool: RbdPool, name: str, size_bytes: int) -> None:
    """Never shrinks."""
    with pool.ours(name) as volume:
        _grow(pool, volume, size_bytes)


def is_ours(pool: RbdPool, name: str) -> bool:
    """Whether it is there with our mark."""
    try:
        with pool.opened(name, read_only=True) as image:
            return pool.is_ours(image)
    except rbd.ImageNotFound:
        return False


def _ensure(
    pool: RbdPool,
    name: str,
    make: Callable[[], None],
    finish: Callable[[Any, bool], None],
    *,
    inherits_mark: bool = False,
) -> None:
    """Finish what is there and ours, else make it; ``finish`` gets the open image, and whether it is new."""
    try:
        with pool.opened(name) as image:
            if pool.is_ours(image):
                finish(image, False)
                if pool.is_noted(name):  # its maker was interrupted at the very end
                    pool.forget(name)
                return
    except rbd.ImageNotFound:
        pool.require_room()
        pool.note(name)
    else:
        if not pool.is_noted(name):
            raise not_ours(name)
        pool.require_room()
        pool.remove_unopened(name)
    try:
        make()
    except rbd.ImageExists:  # though it can't be opened: a name that an interrupted run has left
        pool.remove_unopened(name)
        make()
    _finish_new(pool, name, finish, inherits_mark)
    pool.forget(name)


def _finish_new(pool: RbdPool, name: str, finish: Callable[[Any, bool], None], inherits_mark: bool) -> None:
    try:
        with pool.opened(name) as image:
            if not inherits_mark:
                image.metadata_set(MARK, pool.cloud)
            elif not pool.is_ours(image):  # neither is its image
                raise no_image(name)
            finish(image, True)
    except (Permanent, Transient):
        pool.remove_unopened(name)
        pool.forget(name)
        raise


def _grow(pool: RbdPool, volume: Any, size_bytes: int) -> None:
    if volume.size() < size_bytes:
        pool.require_room()
        volume.resize(size_bytes)


def no_image(internal: str) -> Transient:
    """The image step brings it."""
    return Transient("service_unavailable", "The image is not in the pool yet.", internal=internal)
