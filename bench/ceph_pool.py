"""The stack's pool in its Ceph cluster as anybody's program would use it: by librbd, or by the command ``rbd``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rados
import rbd

from bench import floor
from bench.stack import Stack
from terrace.stack import ceph_stack

USER = "terrace"
GIB = 2**30
_GOLDEN = "golden"


@dataclass(frozen=True, slots=True)
class CephPool:
    """A connection as the nodes' own user."""

    conf: Path
    keyring: Path
    name: str
    io: Any
    image: str  # the one that the stack has

    def clone(self, name: str, size_gib: int) -> None:
        """By librbd."""
        rbd.RBD().clone(self.io, self.image, _GOLDEN, self.io, name)
        with rbd.Image(self.io, name) as image:
            image.resize(size_gib * GIB)

    def clone_by_command(self, name: str, size_gib: int) -> None:
        """What a shell script does."""
        user = ("--conf", str(self.conf), "--id", USER, "--keyring", str(self.keyring))
        parent, child = f"{self.name}/{self.image}@{_GOLDEN}", f"{self.name}/{name}"
        floor.run("rbd", *user, "--rbd_default_clone_format", "2", "clone", parent, child)
        floor.run("rbd", *user, "--no-progress", "resize", "--size", f"{size_gib}G", child)

    def write(self, name: str, content: bytes) -> None:
        """A new image with this content."""
        rbd.RBD().create(self.io, name, len(content), old_format=False)
        with rbd.Image(self.io, name) as image:
            image.write(content, 0)

    def remove(self, name: str) -> None:
        rbd.RBD().remove(self.io, name)

    def names(self) -> list[str]:
        return [str(name) for name in rbd.RBD().list(self.io)]


@contextmanager
def connected(stack: Stack) -> Iterator[CephPool]:
    """The pool with the image that a node has imported."""
    cluster = ceph_stack.cluster_of(stack.settings)
    keyring = stack.settings.layout.node(floor.NODE) / "state" / f"ceph.client.{USER}.keyring"
    options = {"keyring": str(keyring), "rbd_default_clone_format": "2"}
    name = cluster.settings.pool
    with (
        rados.Rados(conffile=str(cluster.conf), name=f"client.{USER}", conf=options) as connection,
        connection.open_ioctx(name) as io,
    ):
        (image,) = (found for found in rbd.RBD().list(io) if found.startswith("image-"))
        yield CephPool(cluster.conf, keyring, name, io, image)
