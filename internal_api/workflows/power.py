"""Start, stop, reboot, reset and power off a VM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainEventKind, DomainState
from internal_api.workflows import vm_work as steps
from internal_api.workflows.vm_work import VmWork
from terrace.engine.step import Run, Step, VmChange, Workflow

if TYPE_CHECKING:
    from internal_api.host import Host

_LOOK_EVERY_S = 1.0  # events tell at once; looking makes up for a lost one
_PRESS_EVERY_S = 3.0
_DEFAULT_TIMEOUT_S = 60.0
_OFF = (DomainEventKind.STOPPED, DomainEventKind.DESTROYED, DomainEventKind.CRASHED)


async def _is_off(work: VmWork) -> bool:
    state = await work.host.hypervisor.find_state(work.vm.uuid)
    return state in (None, DomainState.STOPPED, DomainState.CRASHED)


async def _ask_to_go(work: VmWork, run: Run, gone: asyncio.Event, *, reboot: bool) -> str | None:
    """Ask the guest agent, or press the ACPI button, until ``gone``; says what it took, None in vain.

    A guest that is still booting hears neither, so both are repeated. An agent that has agreed gets
    half of the time to keep its word.
    """
    hypervisor, domain = work.host.hypervisor, work.vm.uuid
    if await hypervisor.find_state(domain) is not DomainState.RUNNING:
        return None  # a paused guest can't react to anything
    timeout_s = float(run.op.params.get("timeout_s", _DEFAULT_TIMEOUT_S))
    started = time.monotonic()
    ask_again_at = started
    method: str | None = None
    while (now := time.monotonic()) < started + timeout_s:
        if now >= ask_again_at:
            # an agent that hangs keeps its caller for seconds: too long for a power off that waits behind
            if method is None and await run.unless_interrupted(hypervisor.shutdown_by_agent(domain, reboot=reboot)):
                method, ask_again_at = "agent", started + timeout_s / 2
            else:
                await hypervisor.shutdown_by_acpi(domain)
                method, ask_again_at = ("acpi" if method else None), now + _PRESS_EVERY_S
        left = started + timeout_s - time.monotonic()
        if await run.wait(gone, max(0.05, min(_LOOK_EVERY_S, left))) or await _is_off(work):
            return method or "acpi"
    return None


async def _shut_down(work: VmWork, run: Run) -> Mapping[str, str]:
    """Ask the guest to power off, and cut the power when it doesn't; says which way it went."""
    if await _is_off(work):
        return {"method": "none"}
    with work.host.signals.expecting(work.vm.uuid, *_OFF) as gone:
        method = await _ask_to_go(work, run, gone, reboot=False)
    if method is None:
        await work.host.hypervisor.ensure_stopped(work.vm.uuid)
    return {"method": method or "poweroff"}


async def _reboot(work: VmWork, run: Run) -> Mapping[str, str]:
    """Ask the guest to reboot, and reset it when it doesn't; says which way it went."""
    hypervisor, domain = work.host.hypervisor, work.vm.uuid
    if await _is_off(work):
        await hypervisor.ensure_started(domain)
        return {"method": "start"}
    with work.host.signals.expecting(domain, DomainEventKind.REBOOTED, *_OFF) as gone:
        method = await _ask_to_go(work, run, gone, reboot=True)
    if method is None and not await _is_off(work):
        await hypervisor.reset(domain)
    await hypervisor.ensure_started(domain)  # ACPI only knows off; and a paused guest goes on
    return {"method": method or "reset"}


async def _reset(work: VmWork, _: Run) -> None:
    if await _is_off(work):
        await work.host.hypervisor.ensure_started(work.vm.uuid)
    else:
        await work.host.hypervisor.reset(work.vm.uuid)


async def _power_off(work: VmWork, _: Run) -> Mapping[str, str]:
    await steps.ensure_stopped(work)
    return {"method": "poweroff"}


_RUNNING = VmChange("running")
_STOPPED = VmChange("stopped")
_STEPS: Final[Mapping[str, tuple[Step[VmWork], ...]]] = {
    "vm_start": (
        Step("seed", do=steps.ensure_seed),
        Step("network", do=steps.ensure_filter),
        Step("domain", do=steps.ensure_domain),
        Step(
            "start",
            do=steps.ensure_started,
            undo=steps.ensure_stopped,
            sets=VmChange("running", started=True),
        ),
        Step("placement", do=steps.set_placement),
    ),
    "vm_stop": (Step("shutdown", do=_shut_down, sets=_STOPPED),),
    "vm_reboot": (Step("reboot", do=_reboot, sets=_RUNNING),),
    "vm_reset": (Step("reset", do=_reset, sets=_RUNNING),),
    "vm_poweroff": (Step("poweroff", do=_power_off, sets=_STOPPED),),
}
STEP_NAMES: Final = {kind: [step.name for step in tuple_] for kind, tuple_ in _STEPS.items()}


def workflows(host: Host) -> list[Workflow[VmWork]]:
    """The workflows on this node: a start can be undone, the others are retried until they succeed."""
    return [
        Workflow(
            kind,
            steps.loader(host),
            parts,
            no_return=len(parts) if kind == "vm_start" else 0,
            failed_vm=_STOPPED if kind == "vm_start" else None,
        )
        for kind, parts in _STEPS.items()
    ]
