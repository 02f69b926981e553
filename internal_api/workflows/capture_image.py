"""Make an image of a VM's system disk: as it is now, or as a snapshot has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from internal_api.host import snapshot_name, volume_name
from internal_api.workflows import disk_snapshots
from internal_api.workflows.import_image import facts_of, keep, remove_kept
from terrace.db import Conn
from terrace.engine.step import Run, Step, Workflow
from terrace.errors import NotFound
from terrace.store import images, vms
from terrace.store.operations import Operation
from terrace.store.vms import Vm
from terrace.types import ImageId

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "image_capture"


@dataclass(frozen=True, slots=True)
class Capture:
    """An image that is to be, and the disk it is taken from."""

    host: Host
    op: Operation
    vm: Vm
    image_id: ImageId

    @property
    def takes_snapshot(self) -> bool:
        """Whether the disk is copied as it is now: by a snapshot for the time of the copy."""
        return bool(self.op.params["temporary"])

    @property
    def snapshot(self) -> str:
        """The snapshot that is copied."""
        return snapshot_name(UUID(self.op.params["snapshot"]))

    @property
    def disks(self) -> disk_snapshots.Disks:
        """The system disk alone."""
        return {disk_snapshots.ROOT_SLOT: volume_name(self.vm)}


async def _take(work: Capture, _: Run) -> Mapping[str, str] | None:
    if not work.takes_snapshot:
        return None
    return {"consistency": await disk_snapshots.take(work.host, work.vm, work.disks, work.snapshot)}


async def _undo_take(work: Capture) -> None:
    if work.takes_snapshot:
        await disk_snapshots.undo_take(work.host, work.vm, work.disks, work.snapshot)


async def _copy(work: Capture, _: Run) -> Mapping[str, Any]:
    facts = await work.host.storage.capture_image(volume_name(work.vm), work.snapshot)
    await keep(work.host, work.image_id, facts)
    return {"image": facts_of(facts)}


async def _remove_copy(work: Capture) -> None:
    await remove_kept(work.host, work.image_id)


async def _clear(work: Capture, _: Run) -> None:
    if work.takes_snapshot:
        await disk_snapshots.remove(work.host, work.vm, work.disks, work.snapshot)


async def _register(conn: Conn, work: Capture) -> None:
    await images.set_available(conn, work.image_id, node=work.host.node, **work.op.result["image"])


async def _forget(conn: Conn, work: Capture) -> None:
    await images.delete(conn, work.image_id)


_STEPS: Final[tuple[Step[Capture], ...]] = (
    Step("claim", unrecord=_forget),
    Step("snapshot", do=_take, undo=_undo_take),
    Step("copy", do=_copy, undo=_remove_copy),
    Step("clear", do=_clear, record=_register),
)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[Capture]:
    """The workflow on this node."""

    async def load(op: Operation) -> Capture:
        assert op.vm_id is not None
        assert op.image_id is not None
        async with host.pool.acquire() as conn:
            vm = await vms.find(conn, op.vm_id)
        if vm is None:
            raise NotFound("VM", op.vm_id)
        return Capture(host, op, vm, op.image_id)

    return Workflow(KIND, load, _STEPS, no_return=len(_STEPS), stuck_vm=None)
