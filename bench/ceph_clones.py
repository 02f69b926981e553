"""Linked clones on Ceph: by the command, by the library, and through the API."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import ceph_pool, floor, load, vms
from bench.ceph_pool import CephPool
from bench.load import Load
from bench.report import Aim, Row, Section
from bench.stack import Stack
from internal_api import cloudinit, seed
from internal_api.drivers.ceph_connection import CephSettings
from internal_api.drivers.protocols import ImageFacts
from internal_api.drivers.rbd_storage import RbdStorage
from terrace.stack import ceph_stack

_MIB = 2**20
_LARGE_GIB = 10
_PIECES = 256  # of data, all over the large image
_CLONE = "python3-rbd"
_CLONE_AND_SEED = "python3-rbd with the seed"
_CREATE = "POST /api/v1/vms"
_VOLUME = "POST /api/v1/volumes"
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: clones, or creates, by number of threads or clients."""

    rounds: int
    by_command: int
    by_library: dict[int, int]
    through_api: dict[int, int]
    alone: int


FULL = Size(rounds=3, by_command=20, by_library={1: 40, 8: 80}, through_api={1: 40, 8: 80}, alone=50)
QUICK = Size(rounds=1, by_command=10, by_library={1: 20, 8: 40}, through_api={1: 20, 8: 40}, alone=10)


async def measure(stack: Stack, image: Path, size: Size) -> list[Section]:
    """All ways in turn, so that they meet the same machine."""
    loads: dict[str, list[Load]] = defaultdict(list)
    with ceph_pool.connected(stack) as pool:
        await _round(stack, pool, QUICK)  # connections and caches are there afterwards
        for _ in range(size.rounds):
            for what, measured in (await _round(stack, pool, size)).items():
                loads[what].append(measured)
    rows = []
    for what, of_rounds in loads.items():
        rows += [
            Row(f"{what}: rate", statistics.median(each.rate for each in of_rounds), "/s"),
            Row(f"{what}: p50", statistics.median(each.quantile_ms(0.5) for each in of_rounds), "ms"),
            Row(f"{what}: p99", statistics.median(each.quantile_ms(0.99) for each in of_rounds), "ms"),
        ]
    for number, library in itertools.product((1, 8), (_CLONE, _CLONE_AND_SEED)):
        ours, theirs = (
            statistics.median(each.rate for each in loads[what])
            for what in (_by("client", number, _CREATE), _by("thread", number, library))
        )
        rows.append(Row(f"rate at {number}: {_CREATE} in {library}", ours / theirs, "×"))
    rows += await _alone(stack, image, size.alone)
    how = (
        "A cluster of 3 mons, 1 mgr and 3 OSDs (memstore, 3 copies) on the same cores. Clones of the tiny image, "
        f"each grown to {vms.DISK_GIB} GiB; medians of {size.rounds} rounds, all ways in turn. A VM needs a clone and "
        "a second image for its seed; its hypervisor only pretends (libvirt's test driver). The command connects anew "
        "each time, twice for a clone. `ensure_volume` is what a node does for a VM's disk, measured without the "
        f"rest; its large image has data all over its {_LARGE_GIB} GiB."
    )
    steps = "Where the time goes: means of the operations' steps."
    return [
        Section("Clones on Ceph", how, rows),
        Section("One create on Ceph by 1 client", steps, await _steps(stack)),
    ]


def _by(who: str, number: int, what: str) -> str:
    return f"{what}, {number} {who}{'s' * (number > 1)}"


async def _round(stack: Stack, pool: CephPool, size: Size) -> dict[str, Load]:
    content = seed.build(cloudinit.GuestConfig("bench", "bench", "02:00:00:00:00:01", None))

    def clone_and_seed(name: str, size_gib: int) -> None:
        pool.clone(name, size_gib)
        pool.write(f"{name}-seed", content)

    found = {"rbd clone + rbd resize": _clone(pool, size.by_command, 1, pool.clone_by_command)}
    for what, clone in ((_CLONE, pool.clone), (_CLONE_AND_SEED, clone_and_seed)):
        for threads, number in size.by_library.items():
            found[_by("thread", threads, what)] = _clone(pool, number, threads, clone)
    for what, create in ((_VOLUME, _create_volumes), (_CREATE, _create_vms)):
        for clients, number in size.through_api.items():
            found[_by("client", clients, what)] = await create(stack, number, clients)
    return found


def _clone(pool: CephPool, number: int, threads: int, clone: Callable[[str, int], None]) -> Load:
    names = [f"bench-{next(_names)}" for _ in range(number)]

    def timed(name: str) -> float:
        began = time.perf_counter()
        clone(name, vms.DISK_GIB)
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as workers:
        latencies = list(workers.map(timed, names))
    seconds = time.perf_counter() - began
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(pool.remove, (name for name in pool.names() if name.startswith("bench-"))))
    return Load(latencies, Counter({0: number}), seconds)


async def _create_vms(stack: Stack, number: int, clients: int) -> Load:
    created, ids = await vms.create(stack, number, clients=clients)
    await vms.delete(stack, ids, clients=8)
    return created.load


async def _create_volumes(stack: Stack, number: int, clients: int) -> Load:
    names = [f"bench-{next(_names)}" for _ in range(number)]
    bodies = (json.dumps({"name": name, "size_gib": vms.DISK_GIB}).encode() for name in names)
    requests = (stack.endpoint.request("POST", "/api/v1/volumes", body) for body in bodies)
    made = (await load.run(stack.endpoint, requests, clients=clients, most_s=120.0)).expect(201)
    removals = (stack.endpoint.request("DELETE", f"/api/v1/volumes/{name}") for name in names)
    (await load.run(stack.endpoint, removals, clients=8, most_s=120.0)).expect(204)
    return made


async def _steps(stack: Stack) -> list[Row]:
    """Means over creates that nothing else runs beside."""
    _, ids = await vms.create(stack, QUICK.through_api[1], clients=1)
    bodies: list[bytes] = []
    requests = (stack.endpoint.request("GET", f"/api/v1/operations?vm={vm_id}") for vm_id in ids)
    (await load.run(stack.endpoint, requests, clients=1, most_s=30.0, on_body=bodies.append)).expect(200)
    spent: dict[str, list[float]] = defaultdict(list)
    for body in bodies:
        for step in json.loads(body)[0]["steps"]:
            spent[step["name"]].append(step["duration_ms"])
    await vms.delete(stack, ids, clients=8)
    return [Row(name, statistics.mean(each), "ms") for name, each in spent.items()]


async def _alone(stack: Stack, tiny: Path, number: int) -> list[Row]:
    """A node's storage driver on its own, in a pool that the stack does not know."""
    cluster, directory = ceph_stack.cluster_of(stack.settings), stack.settings.var / "alone"
    directory.mkdir()
    settings = CephSettings(cluster.conf, "bench", "bench", directory / "keyring", admin_keyring=cluster.admin_keyring)
    storage = RbdStorage(settings, node="bench", staging=directory / "staging")
    await storage.connect(uuid.uuid4())
    rows = []
    for what, image in (("the tiny image", tiny), (f"an image of {_LARGE_GIB} GiB", _large_image(directory))):
        facts = await storage.import_image(_read(image), format=None, checksum=None, max_bytes=2**40)
        seconds = [await _ensure_volume(storage, facts) for _ in range(number)]
        rows.append(Row(f"ensure_volume of {what}: p50", statistics.median(seconds), "s", Aim(high=0.2)))
        rows.append(Row(f"ensure_volume of {what}: slowest of {number}", max(seconds), "s", Aim(high=0.2)))
    await storage.close()
    return rows


async def _ensure_volume(storage: RbdStorage, image: ImageFacts) -> float:
    name = f"{uuid.uuid4()}-root"
    began = time.perf_counter()
    await storage.ensure_volume(name, image_sha256=image.sha256, image_format=image.format, size_gib=2 * _LARGE_GIB)
    seconds = time.perf_counter() - began
    await storage.remove_volume(name)
    return seconds


def _large_image(directory: Path) -> Path:
    """Sparse, as images are, but not empty."""
    raw, image = directory / "large.raw", directory / "large.qcow2"
    with raw.open("wb") as file:
        file.truncate(_LARGE_GIB * 1024 * _MIB)
        for piece in range(_PIECES):
            file.seek(piece * _LARGE_GIB * 1024 * _MIB // _PIECES)
            file.write(os.urandom(_MIB // 16))
    floor.run("qemu-img", "convert", "-O", "qcow2", str(raw), str(image))
    return image


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_MIB):
            yield chunk
