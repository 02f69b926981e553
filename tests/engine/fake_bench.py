"""The bench of every kind of operation: a real node and a real database, with drivers that live in files."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from support.node_world import (
    Cloud,
    give_image,
    qcow2,
    seed_cloud,
    settings,
    start_node,
    world_of,
)
from support.polling import eventually
from support.postgres import Connection, Database

from internal_api import change, snapshot_change, volume_change
from internal_api.caller import Caller
from internal_api.claim import claim_vm
from internal_api.drivers.fake import FakeHypervisor
from internal_api.node import Node
from internal_api.routes import images as image_routes
from internal_api.workflows import clean_pool
from terrace.api.image import ImageCreate
from terrace.api.snapshot import SnapshotCreate, SnapshotRestore
from terrace.api.vm import ActionBody, VmCreate
from terrace.api.volume import VolumeAttach, VolumeCreate
from terrace.engine.testing import Faults, Point, World
from terrace.store import operations
from terrace.store.idempotency import Key
from terrace.store.operations import COLUMNS, Event, Operation
from terrace.types import Identity
from terrace.vm_state import Action

# a child that is to be killed is forked from a server that has imported everything already
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["fake_bench"])
IMAGE = qcow2(seed=7)


ORPHAN = "00000000-0000-4000-8000-000000000000-data"
# what must have been done before an operation of a kind can begin
_VM = ("vm_create",)
_PLUGGED = (*_VM, "volume_create", "volume_attach")
_PREPARATION: dict[str, tuple[str, ...]] = {
    "vm_create": (),
    "vm_start": (*_VM, "vm_poweroff"),
    "image_import": (),
    "image_remove": ("image_import",),
    "image_capture": _VM,
    "volume_create": (),
    "volume_delete": ("volume_create",),
    "volume_attach": (*_VM, "volume_create"),
    "volume_detach": _PLUGGED,
    "volume_resize": _PLUGGED,
    "snapshot_create": _PLUGGED,
    "snapshot_restore": (*_PLUGGED, "snapshot_create"),
    "snapshot_delete": (*_PLUGGED, "snapshot_create"),
    "pool_clean": (),
    **dict.fromkeys(("vm_delete", "vm_stop", "vm_reboot", "vm_reset", "vm_poweroff"), _VM),
}
# a volume is stored at once only in a pool that all nodes share
_SHARED = ("volume_create", "volume_delete")


class Probe(Faults):
    """Faults, and whatever else a test wants to happen at a point of an operation."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.hooks: dict[tuple[str, Point], Callable[[], Awaitable[object]]] = {}

    async def __call__(self, op: Operation, step: str, phase: str, moment: str) -> None:
        hook = self.hooks.get((op.kind, Point(step, phase, moment)))
        if hook is not None:
            await hook()
        await super().__call__(op, step, phase, moment)


MakeBench = Callable[..., Awaitable["FakeBench"]]


def hypervisor_of(bench: FakeBench) -> FakeHypervisor:
    """The bench's hypervisor, to which a test can do things behind the node's back."""
    hypervisor = bench.node.host.hypervisor
    assert isinstance(hypervisor, FakeHypervisor)
    return hypervisor


class FakeBench:
    """Implements ``terrace.engine.testing.Bench``."""

    def __init__(self, kind: str, database: Database, folder: Path, image_url: str, **more: Any) -> None:
        self.kind = kind
        self.faults = Probe(kind)
        self._database = database
        self._folder = folder
        self._image_url = image_url
        self._settings = settings(database, folder, **more)
        self._who: Identity | None = None
        self._node: Node | None = None
        self._conn: Connection | None = None

    @property
    def node(self) -> Node:
        assert self._node is not None
        return self._node

    @property
    def conn(self) -> Connection:
        assert self._conn is not None
        return self._conn

    @property
    def who(self) -> Identity:
        assert self._who is not None
        return self._who

    async def open(self) -> None:
        """Connect, and start the node."""
        self._conn = await self._database.connect()
        self._node = await start_node(self._settings, self.faults, shared_storage=self.kind in _SHARED)
        found = await self.conn.fetchrow("select project_id, id from tokens")
        if found is not None:
            self._who = Identity(found[0], found[1], "admin")

    async def prepare(self) -> None:
        """Make what the operation is to work on."""
        cloud: Cloud = await seed_cloud(self.conn)
        self._who = cloud.who
        assert self._settings.fake_dir is not None
        await give_image(self.conn, cloud, "hv1", self._settings.fake_dir)
        for kind in _PREPARATION[self.kind]:
            assert (await self.do(kind)).state == "succeeded"
        if self.kind == "pool_clean":
            await self.node.host.storage.ensure_empty_volume(ORPHAN, size_gib=1)

    async def close(self) -> None:
        if self._node is not None:
            await self._node.stop()
            self._node = None
        if self._conn is not None:
            await self._conn.close()
            self._conn = None

    async def world(self) -> World:
        assert self._settings.fake_dir is not None
        return await world_of(self.conn, [self._settings.fake_dir])

    async def claim(self, name: str) -> Operation:
        """Claim a VM, and leave its operation to whoever finds it."""
        body = VmCreate(name=name, cpu=1, ram_mib=64, disk_gib=1)
        return (await claim_vm(self.node.host, self.who, body, self._key(f"vm_create {name}"), "request")).operation

    async def run(self) -> Operation:
        return await self.do(self.kind)

    async def do(self, kind: str) -> Operation:
        """Begin an operation of any kind, and wait for its end."""
        await self.begin(kind)
        return await self.ended(kind)

    async def begin(self, kind: str, timeout_s: int = 60) -> Operation | None:
        """Begin an operation as the routes do."""
        key = self._key(kind)
        match kind:
            case "vm_create":
                body = VmCreate(name="vm1", cpu=2, ram_mib=1024, disk_gib=10)
                op: Operation | None = (await claim_vm(self.node.host, self.who, body, key, "request")).operation
            case "vm_delete":
                op = self._heed(await change.begin_delete(self.node.host, self.who, "vm1", key, "request"))
            case "image_import":
                await image_routes.create(self._caller(kind, {"name": "other", "url": self._image_url}), self.node)
                return None
            case "image_remove":
                await image_routes.delete("other", self._caller(kind, {}), self.node)
                return None
            case "volume_create":
                body_of_volume = VolumeCreate(name="data", size_gib=5)
                caller = self._caller(kind, {})
                op = (await volume_change.begin_create(self.node.host, caller, body_of_volume)).operation
            case "volume_delete":
                op = (await volume_change.begin_delete(self.node.host, self._caller(kind, {}), "data")).operation
            case "volume_attach":
                plug = VolumeAttach(vm="vm1")
                op = (await volume_change.begin_attach(self.node.host, self._caller(kind, {}), "data", plug)).operation
            case "volume_detach":
                op = (await volume_change.begin_detach(self.node.host, self._caller(kind, {}), "data")).operation
            case "volume_resize":
                op = (await volume_change.begin_resize(self.node.host, self._caller(kind, {}), "data", 8)).operation
            case "snapshot_create":
                wish = SnapshotCreate(name="before")
                op = (await snapshot_change.begin_create(self.node.host, self._caller(kind, {}), "vm1", wish)).operation
            case "snapshot_restore":
                caller, force = self._caller(kind, {}), SnapshotRestore(force=True)
                begun = await snapshot_change.begin_restore(self.node.host, caller, "vm1", "before", force)
                op = begun.operation
            case "snapshot_delete":
                caller = self._caller(kind, {})
                op = (await snapshot_change.begin_delete(self.node.host, caller, "vm1", "before")).operation
            case "image_capture":
                copy = ImageCreate(name="copy", vm="vm1")
                op = (await snapshot_change.begin_capture(self.node.host, self._caller(kind, {}), copy)).operation
            case "pool_clean":
                op = await clean_pool.begin(self.node.host, None, [ORPHAN], request_id="request")
            case _:
                action, body_ = Action(kind.removeprefix("vm_")), ActionBody(timeout_s=timeout_s)
                op = self._heed(
                    await change.begin_action(self.node.host, self.who, "vm1", action, body_, key, "request")
                )
        if op is not None:
            self.node.submit(op)
        return op

    def _heed(self, begun: change.Begun) -> Operation | None:
        if begun.superseded is not None:
            self.node.interrupted(begun.superseded)
        return begun.operation

    async def ended(self, kind: str) -> Operation:
        """The newest operation of a kind, once it has ended."""

        async def look() -> Operation | None:
            op = (await self._newest(kind))[0]
            return None if op.state in operations.LIVE else op

        found = await eventually(look, within_s=30.0, every_s=0.005)
        assert found is not None
        return found

    async def newest(self) -> tuple[Operation, Sequence[Event]]:
        return await self._newest(self.kind)

    async def _newest(self, kind: str) -> tuple[Operation, Sequence[Event]]:
        row = await self.conn.fetchrow(f"select {COLUMNS} from operations where kind = $1 order by id desc", kind)
        assert row is not None, f"no {kind} has begun"
        op = Operation(*row)
        return op, (await operations.list_events(self.conn, [op.id]))[op.id]

    async def run_until_killed(self, faults: Faults) -> None:
        await self.close()
        victim = _processes.Process(
            target=_begin_and_die,
            args=(self.kind, self._database, self._folder, self._image_url, faults.planned),
        )
        victim.start()
        try:
            await asyncio.to_thread(victim.join, 30.0)
            assert victim.exitcode == -signal.SIGKILL, f"the process ended with {victim.exitcode}"
        finally:
            if victim.is_alive():
                victim.kill()
        await self.open()
        await self.ended(self.kind)

    def _key(self, kind: str) -> Key:
        return Key(self.who.project_id, f"TEST {kind}", f"key-{kind}", hashlib.sha256(kind.encode()).digest())

    def _caller(self, kind: str, body: dict[str, Any]) -> Caller:
        return Caller(self.who, orjson.dumps(body), self._key(kind), "request", 0.0)


def _begin_and_die(kind: str, database: Database, folder: Path, image_url: str, planned: dict[Any, Any]) -> None:
    asyncio.run(_die(FakeBench(kind, database, folder, image_url), planned))


async def _die(bench: FakeBench, planned: dict[Any, Any]) -> None:
    await bench.open()
    bench.faults.planned.update(planned)
    with suppress(AssertionError):
        await bench.do(bench.kind)
