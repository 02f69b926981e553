"""Delete a VM: domain, filter, disks, then the row with all that it claimed. There is no way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from internal_api.workflows import vm_work as steps
from internal_api.workflows.vm_work import VmWork
from terrace.db import Conn
from terrace.engine.step import Run, Step, Workflow
from terrace.store import vms

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "vm_delete"


async def _release(conn: Conn, work: VmWork) -> None:
    await vms.delete_released(conn, work.vm.id)


def _forward(remove: Callable[[VmWork], Awaitable[None]]) -> Callable[[VmWork, Run], Awaitable[None]]:
    async def do(work: VmWork, _: Run) -> None:
        await remove(work)

    return do


_STEPS: Final[tuple[Step[VmWork], ...]] = (
    Step("domain", do=_forward(steps.remove_domain)),
    Step("network", do=_forward(steps.remove_filter)),
    Step("seed", do=_forward(steps.remove_seed)),
    Step("volume", do=_forward(steps.remove_volumes)),
    Step("placement", do=_forward(steps.remove_placement)),
    Step("release", record=_release),
)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[VmWork]:
    """The workflow on this node; every step is retried until it succeeds."""
    return Workflow(KIND, steps.loader(host), _STEPS, no_return=0)
