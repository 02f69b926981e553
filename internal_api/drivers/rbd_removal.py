"""Removing from an RBD pool, through its trash: a name is gone at once and as a whole. Blocking.

What an interrupted removal leaves lies in the trash, with no time to wait there, until the next purge. All of this
works in a full pool. What somebody else has put there, with no time to wait, is left alone.
https://docs.ceph.com/en/latest/rbd/rbd-snapshot/ tells of clones whose parent is in the trash.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from internal_api.drivers.ceph_binding import rbd
from internal_api.drivers.pool_files import image_in_use, looks_ours, not_ours
from internal_api.drivers.rbd_marks import RbdPool
from internal_api.drivers.rbd_names import GOLDEN, image_name, is_import_name
from terrace.errors import Permanent

RETIRED_S = 7 * 24 * 3600


def remove(pool: RbdPool, name: str) -> None:
    """Remove a volume of ours with its snapshots, or what an interrupted run left of one."""
    try:
        with pool.opened(name) as image:
            ours, image_id = pool.is_ours(image), image.id()
            if ours:
                pool.refuse_watched(image, name)
    except rbd.ImageNotFound:
        if pool.is_noted(name):  # its making may have ended between the name and the image
            pool.remove_unopened(name)
            pool.forget(name)
        return
    if ours:
        pool.trash_to_remove(name, image_id)
        _remove_from_trash(pool, image_id)
    elif pool.is_noted(name):
        pool.remove_unopened(name)
    pool.forget(name)


def retire(pool: RbdPool, name: str) -> None:
    """Into the trash, to stay there for a while."""
    try:
        with pool.opened(name) as image:
            if not pool.is_ours(image):
                raise not_ours(name)
            pool.refuse_watched(image, name)
    except rbd.ImageNotFound:
        return
    rbd.RBD().trash_move(pool.io, name, RETIRED_S)


def purge(pool: RbdPool, older_than_s: float) -> int:
    """Remove what was retired so long ago, and what removals have left; says how many of the former."""
    purged = 0
    now = datetime.now(UTC).replace(tzinfo=None)
    for entry in list(rbd.RBD().trash_list(pool.io)):
        is_left = entry["deferment_end_time"] <= entry["deletion_time"]
        if is_left and not pool.is_to_remove(entry["id"]):
            continue
        if not is_left and (now - entry["deletion_time"]).total_seconds() < older_than_s:
            continue
        if not (looks_ours(entry["name"]) or (is_left and entry["name"].startswith(("image-", "import-")))):
            continue
        with contextlib.suppress(rbd.ImageNotFound, rbd.ImageBusy):  # another node is at it
            if _purge(pool, entry["id"], is_left) and not is_left:
                purged += 1
    return purged


def _purge(pool: RbdPool, image_id: str, is_left: bool) -> bool:
    try:
        with pool.opened(image_id=image_id) as image:
            ours = pool.is_ours(image)
    except rbd.ImageNotFound:
        if is_left:  # all of it went, but not its name
            rbd.RBD().trash_remove(pool.io, image_id, force=True)
            pool.forget_removed(image_id)
        return False
    return ours and _remove_from_trash(pool, image_id)


def remove_image(pool: RbdPool, sha256: str) -> None:
    """Remove a golden image; raises Permanent ``image_in_use`` while it has clones."""
    name = image_name(sha256)
    image_id = _find_image(pool, name)
    if image_id is None:
        return
    _purge_children(pool, image_id)
    _refuse_parent(pool, image_id)
    with pool.locked(name):
        pool.trash_to_remove(name, image_id)
        try:  # nobody finds it any more, but somebody may just have cloned it
            _refuse_parent(pool, image_id)
        except Permanent:
            rbd.RBD().trash_restore(pool.io, image_id, name)
            pool.forget_removed(image_id)
            raise
    _remove_from_trash(pool, image_id)


def count_children(pool: RbdPool, sha256: str) -> int:
    """Clones of a golden image, once what removals have left of some is gone."""
    image_id = _find_image(pool, image_name(sha256))
    if image_id is None:
        return 0
    _purge_children(pool, image_id)
    return len(_children(pool, image_id))


def imports(pool: RbdPool) -> list[str]:
    """Images in the making by this node, those that nobody makes any more among them."""
    return [name for name in rbd.RBD().list(pool.io) if is_import_name(name, pool.node)]


def _find_image(pool: RbdPool, name: str) -> str | None:
    """The id of a golden image of ours."""
    try:
        with pool.opened(name, read_only=True) as image:
            return str(image.id()) if pool.is_ours(image) else None
    except rbd.ImageNotFound:
        return None


def _purge_children(pool: RbdPool, image_id: str) -> None:
    """Remove what removals of clones have left in the trash."""
    if any(child["trash"] for child in _children(pool, image_id)):
        purge(pool, float("inf"))


def _children(pool: RbdPool, image_id: str) -> list[Any]:
    """Clones of a golden image, those in the trash too."""
    try:
        with pool.opened(image_id=image_id, snapshot=GOLDEN, read_only=True) as image:
            return list(image.list_children2())
    except rbd.ImageNotFound:  # without the snapshot
        return []


def _refuse_parent(pool: RbdPool, image_id: str) -> None:
    count = len(_children(pool, image_id))
    if count:
        raise image_in_use(count)


def _remove_from_trash(pool: RbdPool, image_id: str) -> bool:
    """Whether it went: a parent stays as long as it has clones."""
    with pool.opened(image_id=image_id) as image:
        if _children(pool, image_id):
            return False
        for snapshot in list(image.list_snaps()):
            image.remove_snap(snapshot["name"])
    try:
        rbd.RBD().trash_remove(pool.io, image_id, force=True)
    except rbd.ImageHasSnapshots:  # a clone that came after the last look holds one
        return False
    pool.forget_removed(image_id)
    return True
