"""Golden images in an RBD pool: ``image-<sha256>`` with the snapshot ``golden``, whole or absent. Blocking.

One in the making has a name of its own, and gets its final one last.
"""

from __future__ import annotations

from internal_api.drivers.ceph_binding import rbd
from internal_api.drivers.pool_files import not_ours
from internal_api.drivers.rbd_marks import ID_OBJECT, IMAGE_MARK, MARK, RbdPool, metadata
from internal_api.drivers.rbd_names import GOLDEN, image_name


def has(pool: RbdPool, sha256: str) -> bool:
    """Whether it is there, whole, and this cloud's."""
    try:
        with pool.opened(image_name(sha256), read_only=True) as image:
            return pool.is_ours(image) and bool(image.snap_exists(GOLDEN))
    except rbd.ImageNotFound:
        return False


def begin(pool: RbdPool, name: str, size_bytes: int) -> None:
    """An empty, sparse image to be filled."""
    pool.note(name)
    rbd.RBD().create(pool.io, name, size_bytes, old_format=False)
    with pool.opened(name) as image:
        image.metadata_set(MARK, pool.cloud)


def finish(pool: RbdPool, name: str, sha256: str) -> None:
    """Give a filled image its snapshot and its name; when another run was quicker, theirs is kept."""
    with pool.opened(name) as image:
        image.metadata_set(IMAGE_MARK, sha256)
        if not image.snap_exists(GOLDEN):
            image.create_snap(GOLDEN)
    with pool.locked(image_name(sha256)):
        if has(pool, sha256):
            abandon(pool, name)
            return
        _rename(pool, name, image_name(sha256))
    pool.forget(name)


def _rename(pool: RbdPool, name: str, target: str) -> None:
    try:
        rbd.RBD().rename(pool.io, name, target)
    except rbd.ImageExists:
        try:
            with pool.opened(target) as image:
                if not pool.is_ours(image) or image.snap_exists(GOLDEN):
                    raise not_ours(target)
                pool.refuse_watched(image, target)
                image_id = image.id()
        except rbd.ImageNotFound:  # only the name is there: left by an interrupted renaming or removal
            pool.remove_unopened(target)
        else:  # nobody can have cloned it
            pool.trash_to_remove(target, image_id)
        rbd.RBD().rename(pool.io, name, target)


def abandon(pool: RbdPool, name: str) -> None:
    """Remove an image in the making, absent or not; raises ImageBusy while somebody has it open."""
    try:
        with pool.opened(name) as image:
            if not pool.is_ours(image) and not pool.is_noted(name):
                return
            sha256, image_id = metadata(image, IMAGE_MARK), image.id()
            if sha256 is not None and _is_named(pool, image_name(sha256), image_id):
                _finish_renaming(pool, name, image_name(sha256))
                return
            pool.refuse_watched(image, name)
            for snapshot in list(image.list_snaps()):
                image.remove_snap(snapshot["name"])
    except rbd.ImageNotFound:
        if not pool.is_noted(name):
            return
    pool.remove_unopened(name)
    pool.forget(name)


def repair(pool: RbdPool, sha256: str) -> bool:
    """Finish the renaming that gave an image its name but did not enter it in the pool's list; whether there was one.

    Such an image can be opened, but not cloned.
    """
    target = image_name(sha256)
    try:
        with pool.opened(target, read_only=True) as image:
            image_id, ours = image.id(), pool.is_ours(image)
    except rbd.ImageNotFound:
        return False
    listed = {entry["id"]: entry["name"] for entry in rbd.RBD().list2(pool.io)}
    name = listed.get(image_id, target)
    if not ours or name == target:
        return False
    _finish_renaming(pool, name, target)
    return True


def _is_named(pool: RbdPool, name: str, image_id: str) -> bool:
    try:
        with pool.opened(name, read_only=True) as image:
            return bool(image.id() == image_id)
    except rbd.ImageNotFound:
        return False


def _finish_renaming(pool: RbdPool, name: str, target: str) -> None:
    """An interrupted renaming left an image that is opened by its new name, and listed by its old one."""
    with pool.locked(target):
        pool.io.write_full(ID_OBJECT + name, pool.io.read(ID_OBJECT + target))
        pool.io.remove_object(ID_OBJECT + target)
        rbd.RBD().rename(pool.io, name, target)
    pool.forget(name)
