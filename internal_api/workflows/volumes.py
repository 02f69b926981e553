"""Create, delete, attach, detach and resize a volume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainDisk
from internal_api.host import data_volume_name
from internal_api.workflows.vm_work import plugged_disk
from terrace.db import Conn
from terrace.engine.step import Run, Step, Workflow
from terrace.errors import NotFound, Permanent, Transient
from terrace.store import nodes, vms, volumes
from terrace.store.operations import Operation
from terrace.store.vms import Vm
from terrace.store.volumes import Volume

if TYPE_CHECKING:
    from internal_api.host import Host

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class VolumeWork:
    """A volume in the hands of the node that works on it, with the VM that it is or will be plugged into."""

    host: Host
    op: Operation
    volume: Volume
    vm: Vm | None

    @property
    def name(self) -> str:
        """The volume's name in its pool."""
        return data_volume_name(self.volume.uuid)

    @property
    def disk(self) -> DomainDisk:
        """The volume as its VM's domain has it."""
        assert self.volume.slot is not None
        return plugged_disk(self.host, self.volume.id, self.volume.uuid, self.volume.slot)

    @property
    def binds(self) -> bool:
        """Whether nothing of the volume was stored before this operation."""
        return bool(self.op.params.get("binds"))


def _loader(host: Host) -> Callable[[Operation], Awaitable[VolumeWork]]:
    async def load(op: Operation) -> VolumeWork:
        assert op.volume_id is not None
        async with host.pool.acquire() as conn:
            volume = await volumes.find_by_id(conn, op.volume_id)
            if volume is None:
                raise NotFound("volume", op.volume_id)
            vm = await vms.find(conn, op.vm_id) if op.vm_id is not None else None
        return VolumeWork(host, op, volume, vm)

    return load


async def _ensure_stored(work: VolumeWork, _: Run) -> None:
    """Make the empty disk. One that is not bound to a pool yet is made where it is first attached."""
    if work.volume.pool_id is not None:
        await work.host.storage.ensure_empty_volume(work.name, size_gib=work.volume.size_gib)


async def _remove_stored(work: VolumeWork) -> None:
    if work.volume.pool_id is not None:
        await work.host.storage.remove_volume(work.name)


async def _delete_stored(work: VolumeWork, _: Run) -> None:
    await _remove_stored(work)


async def _bind(work: VolumeWork, run: Run) -> None:
    if work.binds:
        await _ensure_stored(work, run)


async def _unbind(work: VolumeWork) -> None:
    if work.binds:
        await _remove_stored(work)


async def _plug(work: VolumeWork, _: Run) -> None:
    # a domain that is not defined now is defined with all its disks when the VM starts
    if work.vm is not None and await work.host.hypervisor.find_state(work.vm.uuid) is not None:
        await _refuse_while_away(work)
        await work.host.hypervisor.attach_disk(work.vm.uuid, work.disk)


async def _refuse_while_away(work: VolumeWork) -> None:
    """QEMU stands still, and its guest with it, while it opens, grows or closes a disk in a pool that is away."""
    await work.host.storage.ping()


async def _unplug(work: VolumeWork) -> None:
    if work.vm is not None:
        await _refuse_while_away(work)
        await work.host.hypervisor.detach_disk(work.vm.uuid, work.disk.slot)


async def _do_unplug(work: VolumeWork, _: Run) -> None:
    try:
        await _unplug(work)
    except Transient as exc:
        if exc.code == "device_busy":  # the guest has had its time, and its user shall hear of it
            raise Permanent(exc.code, exc.detail, internal=exc.internal) from exc
        raise


async def _undo_unplug(work: VolumeWork) -> None:
    if work.vm is not None and await work.host.hypervisor.find_state(work.vm.uuid) is not None:
        await work.host.hypervisor.attach_disk(work.vm.uuid, work.disk)


async def _grow(work: VolumeWork, run: Run) -> None:
    size_gib = int(run.op.params["size_gib"])
    await _refuse_while_away(work)
    if work.vm is not None and await work.host.hypervisor.grow_disk(work.vm.uuid, work.disk.slot, size_gib * _GIB):
        return
    if work.volume.pool_id is not None:
        await work.host.storage.grow_volume(work.name, size_gib=size_gib)


async def _forget(conn: Conn, work: VolumeWork) -> None:
    if work.volume.pool_id is not None:
        await nodes.release_disk(conn, work.volume.pool_id, work.volume.size_gib)
    await volumes.delete(conn, work.volume.id)


async def _set_available(conn: Conn, work: VolumeWork) -> None:
    await volumes.set_status(conn, work.volume.id, "available")


async def _set_in_use(conn: Conn, work: VolumeWork) -> None:
    await volumes.set_status(conn, work.volume.id, "in_use")


async def _set_free(conn: Conn, work: VolumeWork) -> None:
    await volumes.unplug(conn, work.volume.id)


async def _give_back_slot(conn: Conn, work: VolumeWork) -> None:
    if work.binds and work.volume.pool_id is not None:
        await nodes.release_disk(conn, work.volume.pool_id, work.volume.size_gib)
    await volumes.unplug(conn, work.volume.id, unbind=work.binds)


async def _give_back_growth(conn: Conn, work: VolumeWork) -> None:
    if work.volume.pool_id is not None:
        growth = int(work.op.params["size_gib"]) - work.volume.size_gib
        await nodes.release_disk(conn, work.volume.pool_id, growth)


async def _set_size(conn: Conn, work: VolumeWork) -> None:
    await volumes.set_size(conn, work.volume.id, int(work.op.params["size_gib"]))


async def _give_up(conn: Conn, work: VolumeWork) -> None:
    await volumes.set_error(conn, work.volume.id, work.op.error)


_STEPS: Final[dict[str, tuple[Step[VolumeWork], ...]]] = {
    "volume_create": (
        Step("claim", unrecord=_forget),
        Step("volume", do=_ensure_stored, undo=_remove_stored, record=_set_available),
    ),
    "volume_delete": (Step("volume", do=_delete_stored), Step("release", record=_forget)),
    "volume_attach": (
        Step("claim", unrecord=_give_back_slot),
        Step("volume", do=_bind, undo=_unbind),
        Step("device", do=_plug, undo=_unplug, record=_set_in_use),
    ),
    "volume_detach": (
        Step("claim", unrecord=_set_in_use),
        Step("device", do=_do_unplug, undo=_undo_unplug, record=_set_free),
    ),
    "volume_resize": (
        Step("claim", unrecord=_give_back_growth),
        Step("grow", do=_grow, record=_set_size),
    ),
}
STEP_NAMES: Final = {kind: [step.name for step in steps] for kind, steps in _STEPS.items()}


def workflows(host: Host) -> list[Workflow[VolumeWork]]:
    """The workflows on this node: a deletion is retried until it succeeds, the others can be undone."""
    return [
        Workflow(
            kind,
            _loader(host),
            steps,
            no_return=0 if kind == "volume_delete" else len(steps),
            # a guest that holds on to its disk was given time enough by each attempt
            stuck_vm=None,
            gave_up=_give_up,
        )
        for kind, steps in _STEPS.items()
    ]
