"""Take, restore and delete a snapshot of a VM."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internal_api.host import snapshot_name
from internal_api.workflows import disk_snapshots
from internal_api.workflows import vm_work as steps
from internal_api.workflows.vm_work import VmWork
from terrace.db import Conn
from terrace.engine.step import Run, Step, VmChange, Workflow
from terrace.errors import NotFound, Permanent
from terrace.store import snapshots, vms
from terrace.store.operations import Operation
from terrace.store.snapshots import Snapshot
from terrace.store.vms import Vm

if TYPE_CHECKING:
    from internal_api.host import Host


@dataclass(frozen=True, slots=True)
class SnapshotWork:
    """A snapshot and its VM in the hands of the VM's owner."""

    host: Host
    op: Operation
    vm: Vm
    snapshot: Snapshot

    @property
    def name(self) -> str:
        """The snapshot's name at each of its disks."""
        return snapshot_name(self.snapshot.uuid)

    @property
    def disks(self) -> disk_snapshots.Disks:
        """The disks that it is of."""
        return disk_snapshots.disks_of(self.vm, self.snapshot.disks)


def _loader(host: Host) -> Callable[[Operation], Awaitable[SnapshotWork]]:
    async def load(op: Operation) -> SnapshotWork:
        assert op.vm_id is not None
        assert op.snapshot_id is not None
        async with host.pool.acquire() as conn:
            vm = await vms.find(conn, op.vm_id)
            snapshot = await snapshots.find_by_id(conn, op.snapshot_id)
        if vm is None or snapshot is None:
            raise NotFound("snapshot", op.snapshot_id)
        return SnapshotWork(host, op, vm, snapshot)

    return load


async def _take(work: SnapshotWork, _: Run) -> Mapping[str, str]:
    return {"consistency": await disk_snapshots.take(work.host, work.vm, work.disks, work.name)}


async def _undo_take(work: SnapshotWork) -> None:
    await disk_snapshots.undo_take(work.host, work.vm, work.disks, work.name)


async def _remove(work: SnapshotWork, _: Run) -> None:
    await disk_snapshots.remove(work.host, work.vm, work.disks, work.name)


async def _check(work: SnapshotWork, _: Run) -> None:
    """What would fail half-way is found before the VM is touched."""
    await work.host.storage.check_room()
    for name in work.disks.values():
        if not await work.host.storage.has_snapshot(name, work.name):
            raise Permanent("snapshot_missing", "One of the VM's disks lacks this snapshot.", internal=name)


async def _stop(work: SnapshotWork, _: Run) -> None:
    await work.host.hypervisor.ensure_stopped(work.vm.uuid)


async def _roll_back(work: SnapshotWork, _: Run) -> None:
    """Give the disks their content back; what has grown since stays as large as it is recorded."""
    storage = work.host.storage
    then = work.snapshot.disks
    grown = {one.slot: one.size_gib for one in work.vm.volumes if one.size_gib > then.get(one.id, one.size_gib)}
    for slot, name in work.disks.items():
        await storage.roll_back(name, work.name)
        if slot in grown:
            await storage.grow_volume(name, size_gib=grown[slot])


async def _start(work: SnapshotWork, run: Run) -> None:
    if work.op.params["start"]:
        for step in (steps.ensure_seed, steps.ensure_filter, steps.ensure_domain, steps.ensure_started):
            await step(VmWork(work.host, work.vm), run)


def _vm_after(op: Operation) -> VmChange:
    return VmChange("running", started=True) if op.params["start"] else VmChange("stopped")


async def _forget(conn: Conn, work: SnapshotWork) -> None:
    await snapshots.delete(conn, work.snapshot.id)


async def _set_taken(conn: Conn, work: SnapshotWork) -> None:
    await snapshots.set_status(conn, work.snapshot.id, "available", work.op.result["consistency"])


async def _set_available(conn: Conn, work: SnapshotWork) -> None:
    await snapshots.set_status(conn, work.snapshot.id, "available")


async def _give_up(conn: Conn, work: SnapshotWork) -> None:
    # one that could not be restored is as good as before
    status = "available" if work.op.kind == "snapshot_restore" else "error"
    await snapshots.set_status(conn, work.snapshot.id, status)


_STEPS: Final[dict[str, tuple[Step[SnapshotWork], ...]]] = {
    "snapshot_create": (
        Step("claim", unrecord=_forget),
        Step("disks", do=_take, undo=_undo_take, record=_set_taken),
    ),
    "snapshot_restore": (
        Step("check", do=_check, unrecord=_set_available),
        Step("stop", do=_stop, sets=VmChange("stopped")),
        Step("disks", do=_roll_back),
        Step("start", do=_start, record=_set_available, sets=_vm_after),
    ),
    "snapshot_delete": (Step("disks", do=_remove), Step("release", record=_forget)),
}
_NO_RETURN: Final = {"snapshot_create": len(_STEPS["snapshot_create"]), "snapshot_restore": 1}
STEP_NAMES: Final = {kind: [step.name for step in tuple_] for kind, tuple_ in _STEPS.items()}


def workflows(host: Host) -> list[Workflow[SnapshotWork]]:
    """The workflows on this node: taking one can be undone, and restoring it until it has begun."""
    return [
        Workflow(
            kind,
            _loader(host),
            parts,
            no_return=_NO_RETURN.get(kind, 0),
            stuck_vm=VmChange("error") if kind == "snapshot_restore" else None,
            gave_up=_give_up,
        )
        for kind, parts in _STEPS.items()
    ]
