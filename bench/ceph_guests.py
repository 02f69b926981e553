"""How soon a real guest whose disk lies on Ceph has written to it, beside the bare floor of the same guest."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import rbd

from bench import ceph_pool, floor, guests
from bench.ceph_pool import CephPool
from bench.report import Aim, Section
from bench.stack import Stack
from internal_api.drivers.ceph_connection import CephSettings
from internal_api.drivers.protocols import DiskSource
from internal_api.drivers.rbd_storage import RbdStorage

_FLOOR = "rbd clone, rbd resize, virsh define, virsh start"
_POLL_S = 0.01
_BOOT_S = 120.0


@dataclass(slots=True)
class Times:
    """Seconds from the request to the started domain, and to the guest's first write."""

    started: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RbdDisks:
    """Images in the stack's own pool, reached in the same way."""

    pool: CephPool
    root: DiskSource
    seed: DiskSource

    @classmethod
    def named(cls, pool: CephPool, domain: uuid.UUID) -> RbdDisks:
        """The names are as a node would give them."""
        settings = CephSettings(pool.conf, pool.name, ceph_pool.USER, pool.keyring)
        storage = RbdStorage(settings, node="bench", staging=pool.conf.parent)
        return cls(pool, storage.volume_source(f"{domain}-root"), storage.blob_source(f"{domain}-seed"))

    def write_seed(self, content: bytes) -> None:
        self.pool.write(_image(self.seed), content)

    def make(self) -> None:
        self.pool.clone_by_command(_image(self.root), floor.DISK_GIB)

    def remove(self) -> None:
        self.pool.remove(_image(self.root))
        self.pool.remove(_image(self.seed))


def _image(source: DiskSource) -> str:
    return source.path.rpartition("/")[2]


async def measure(stack: Stack, rounds: int) -> list[Section]:
    """Both ways in turn, one guest at a time."""
    await guests.warm_up(stack)
    bare, terrace = Times(), Times()
    with ceph_pool.connected(stack) as pool:
        for number in range(1, rounds + 1):
            await _bare(stack, pool, number, bare)
            await _through_terrace(stack, pool, number, terrace)
    rows = [
        *guests.compare("started", _FLOOR, bare.started, terrace.started),
        *guests.compare("first write", _FLOOR, bare.written, terrace.written, Aim(high=1.2)),
    ]
    how = (
        f"{guests.how(rounds)} A cluster of 3 mons, 1 mgr and 3 OSDs (memstore, 3 copies) on the same cores. The floor "
        "does what a careful shell script would, with the commands rbd and virsh. The first write is seen in the "
        "clone's own objects, for both in the same way: librbd is asked every "
        f"{1000 * _POLL_S:g} ms which of them exist."
    )
    return [Section("Real guests on Ceph", how, rows)]


async def _bare(stack: Stack, pool: CephPool, number: int, times: Times) -> None:
    domain = uuid.uuid4()
    guest = floor.prepare(stack, number, guests.PUBLIC_KEY, domain, RbdDisks.named(pool, domain))
    watcher = asyncio.create_task(asyncio.to_thread(_first_write, pool, set(pool.names())))
    began = time.perf_counter()
    await asyncio.to_thread(guest.start)
    times.started.append(time.perf_counter() - began)
    times.written.append(await watcher - began)
    guest.remove()


async def _through_terrace(stack: Stack, pool: CephPool, number: int, times: Times) -> None:
    watcher = asyncio.create_task(asyncio.to_thread(_first_write, pool, set(pool.names())))
    began = time.perf_counter()
    seconds, _ = await guests.create_vm(stack, f"vm-{number}")
    times.started.append(seconds)
    times.written.append(await watcher - began)
    await guests.delete_vm(stack, f"vm-{number}")


def _first_write(pool: CephPool, known: set[str]) -> float:
    """When the next new system disk got data of its own (``perf_counter``); raises TimeoutError."""
    deadline = time.monotonic() + _BOOT_S
    with _new_disk(pool, known, deadline) as disk:
        while not _has_data(disk):
            _pause(deadline)
        return time.perf_counter()


def _new_disk(pool: CephPool, known: set[str], deadline: float) -> Any:
    """A system disk that was not known, open once it has been grown: an image that is read only stays as opened."""
    while True:
        for name in set(pool.names()) - known:
            if name.endswith("-root"):
                with contextlib.suppress(rbd.ImageNotFound):  # its making is not over
                    disk = rbd.Image(pool.io, name, read_only=True)
                    if disk.size() == floor.DISK_GIB * ceph_pool.GIB:
                        return disk
                    disk.close()
        _pause(deadline)


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the guest wrote nothing")
    time.sleep(_POLL_S)


def _has_data(disk: Any) -> bool:
    """Whether the clone has objects of its own; what its guest only read makes none."""
    found: list[int] = []
    disk.diff_iterate(
        0, disk.size(), None, lambda offset, *_: found.append(offset), include_parent=False, whole_object=True
    )
    return bool(found)
