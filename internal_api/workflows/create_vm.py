"""Create a VM: from the claim's row to a started guest; undone backwards when a step fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from internal_api.workflows import image_bytes
from internal_api.workflows import vm_work as steps
from internal_api.workflows.vm_work import VmWork
from terrace.db import Conn
from terrace.engine.step import Run, Step, VmChange, Workflow
from terrace.store import vms, volumes

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "vm_create"


async def _release(conn: Conn, work: VmWork) -> None:
    await vms.delete_released(conn, work.vm.id, with_volumes=True)


async def _set_placement(work: VmWork, run: Run) -> None:
    await steps.set_placement(work, run)
    if work.vm.volumes:  # not in a ``record``: that would make a transaction of every create's last save
        async with work.host.pool.acquire() as conn:
            await volumes.set_plugged(conn, work.vm.id)


async def _ensure_image(work: VmWork, _: Run) -> None:
    await image_bytes.ensure_here(work.host, work.vm.image_sha256, work.vm.image_format)


_STEPS: Final[tuple[Step[VmWork], ...]] = (
    Step("claim", unrecord=_release),
    Step("image", do=_ensure_image),
    Step("volume", do=steps.ensure_volumes, undo=steps.remove_volumes),
    Step("seed", do=steps.ensure_seed, undo=steps.remove_seed),
    Step("network", do=steps.ensure_filter, undo=steps.remove_filter),
    Step("domain", do=steps.ensure_domain, undo=steps.remove_domain),
    Step("start", do=steps.ensure_started, undo=steps.ensure_stopped, sets=VmChange("running", started=True)),
    Step("placement", do=_set_placement, undo=steps.remove_placement),
)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[VmWork]:
    """The workflow on this node; nothing in it is beyond return."""
    return Workflow(KIND, steps.loader(host), _STEPS, no_return=len(_STEPS))
