"""Whose an image in an RBD pool is, told by its metadata; and what was begun but has no mark yet.

Something unmarked is somebody else's, and nobody touches it. Making a volume takes several steps, and the mark can
only be the second: so its name is first noted in an object of the cloud (the keys of ``terrace.<cloud>``), and an
image that is noted and unmarked is what an interrupted run of ours has left.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from internal_api.drivers.ceph_binding import rados, rbd
from internal_api.drivers.ceph_errors import in_use
from internal_api.drivers.pool_files import volume_missing
from terrace.errors import Transient

MARK = "terrace.cloud"
ID_OBJECT = "rbd_id."  # with an image's name: the object that holds its id
IMAGE_MARK = "terrace.sha256"  # of a golden image; its clones inherit its metadata, these two among them

_REMOVED = "removed/"  # with an image's id: the note of one that is in the trash to go

LOCK_WAIT_S = 5.0
LOCK_S = 60  # whoever has not ended by then is dead
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class RbdPool:
    """A connected pool in the hands of one node of one cloud."""

    io: Any
    client_id: int
    cloud: str
    node: str
    require_room: Callable[[], None] = lambda: None  # raises Transient ``pool_full``

    @contextlib.contextmanager
    def opened(self, name: str | None = None, **options: Any) -> Iterator[Any]:
        """An image, for as long as the context lasts; raises librbd's ImageNotFound."""
        image = rbd.Image(self.io, name, **options)
        try:
            yield image
        finally:
            image.close()

    @contextlib.contextmanager
    def ours(self, name: str) -> Iterator[Any]:
        """A volume of this cloud, open; raises Permanent ``volume_missing``."""
        try:
            image = rbd.Image(self.io, name)
        except rbd.ImageNotFound:
            raise volume_missing(name) from None
        try:
            if not self.is_ours(image):
                raise volume_missing(f"{name} is not ours")
            yield image
        finally:
            image.close()

    def is_ours(self, image: Any) -> bool:
        """Whether an open image carries this cloud's mark."""
        return metadata(image, MARK) == self.cloud

    def refuse_watched(self, image: Any, name: str) -> None:
        """Transient ``volume_in_use`` when anybody else has an image open (a dead one's watch lasts 30 s)."""
        others = [watcher["addr"] for watcher in image.watchers_list() if watcher["id"] != self.client_id]
        if others:
            raise in_use(f"{name} is open at {', '.join(others)}")

    def note(self, name: str) -> None:
        """Remember that we begin to make this."""
        with rados.WriteOpCtx() as op:
            self.io.set_omap(op, (name,), (self.node.encode(),))
            self.io.operate_write_op(op, self._notes)

    def forget(self, name: str) -> None:
        """It is made, or gone."""
        with contextlib.suppress(rados.ObjectNotFound), rados.WriteOpCtx() as op:
            self.io.remove_omap_keys(op, (name,))
            self.io.operate_write_op(op, self._notes)

    def is_noted(self, name: str) -> bool:
        """Whether we had begun to make this."""
        with contextlib.suppress(rados.ObjectNotFound), rados.ReadOpCtx() as op:
            found, _ = self.io.get_omap_vals_by_keys(op, (name,))
            self.io.operate_read_op(op, self._notes)
            return bool(dict(found))
        return False

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Nobody else of this cloud is inside with the same ``what``; Transient when it takes long.

        Two renamings to one name at once both report success (librbd 16), and one of them has not happened.
        """
        cookie, deadline = uuid.uuid4().hex, time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                self.io.lock_exclusive(self._notes, what, cookie, desc=self.node, duration=LOCK_S)
                break
            except rados.ObjectBusy:
                if time.monotonic() > deadline:
                    raise Transient("service_unavailable", "The storage pool is busy.", internal=what) from None
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            with contextlib.suppress(rados.Error):  # it ends by itself
                self.io.unlock(self._notes, what, cookie)

    def remove_unopened(self, name: str) -> None:
        """Remove an image without snapshots that nobody marked, or what is left of it: maybe only its name."""
        try:
            rbd.RBD().remove(self.io, name)
        except rbd.ImageNotFound:
            with contextlib.suppress(rados.ObjectNotFound):
                self.io.remove_object(ID_OBJECT + name)

    def trash_to_remove(self, name: str, image_id: str) -> None:
        """Into the trash, with no time to wait there, and noted: others may put something there to keep it."""
        self.note(_REMOVED + image_id)
        rbd.RBD().trash_move(self.io, name, 0)

    def is_to_remove(self, image_id: str) -> bool:
        """Whether we had put this into the trash to remove it."""
        return self.is_noted(_REMOVED + image_id)

    def forget_removed(self, image_id: str) -> None:
        """It is gone from the trash."""
        self.forget(_REMOVED + image_id)

    def prepare(self) -> None:
        """Make the objects that later calls change, as a full pool takes changes but nothing new."""
        for name in (self._notes, "rbd_trash"):
            with rados.WriteOpCtx() as op:
                op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                self.io.operate_write_op(op, name)

    @property
    def _notes(self) -> str:
        return f"terrace.{self.cloud}"


def metadata(image: Any, key: str) -> str | None:
    """A value of an open image's metadata."""
    try:
        return str(image.metadata_get(key))
    except KeyError:
        return None
