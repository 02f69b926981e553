"""Start, stop, reboot, reset and power off a VM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainEventKind, DomainState
from internal_api.workflows import vm_work as steps
from internal_api.workflows.vm_work import VmWork
from terrace.engine.step import Run, Step, VmChange, Workflow

if TYPE_CHECKING:
    from internal_api.host import Host

_LOOK_EVERY_S = 1.0  # events tell at once; looking makes up for a lost one
_DEFAULT_TIMEOUT_S = 60.0
_OFF = (DomainEventKind.STOPPED, DomainEventKind.DESTROYED, DomainEventKind.CRASHED)


async def _is_off(work: VmWork) -> bool:
    state = await work.host.hypervisor.find_state(work.vm.uuid)
    return state in (None, DomainState.STOPPED, DomainState.CRASHED)


async def _wait_until(
    run: Run, event: asyncio.Event, look: Callable[[], Awaitable[bool]] | None, timeout_s: float
) -> bool:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if await run.wait(event, min(_LOOK_EVERY_S, left)):
            return True
        if look is not None and await look():
            return True
    return False


def _timeout_s(run: Run) -> float:
    return float(run.op.params.get("timeout_s", _DEFAULT_TIMEOUT_S))


async def _shut_down(work: VmWork, run: Run) -> Mapping[str, str]:
    """Ask the guest agent, then press the ACPI button, then cut the power; says which one it took."""
    hypervisor, domain = work.host.hypervisor, work.vm.uuid
    if await _is_off(work):
        return {"method": "none"}
    half = _timeout_s(run) / 2

    async def off() -> bool:
        return await _is_off(work)

    with work.host.signals.expecting(domain, *_OFF) as gone:
        # a paused guest can't react to anything
        if await hypervisor.find_state(domain) is DomainState.RUNNING:
            if await hypervisor.shutdown_by_agent(domain) and await _wait_until(run, gone, off, half):
                return {"method": "agent"}
            if await off():
                return {"method": "agent"}
            await hypervisor.shutdown_by_acpi(domain)
            if await _wait_until(run, gone, off, half):
                return {"method": "acpi"}
        await hypervisor.ensure_stopped(domain)
    return {"method": "poweroff"}


async def _reboot(work: VmWork, run: Run) -> Mapping[str, str]:
    """Ask the guest agent, then ACPI, then reset; says which one it took."""
    hypervisor, domain = work.host.hypervisor, work.vm.uuid
    if await _is_off(work):
        await hypervisor.ensure_started(domain)
        return {"method": "start"}
    half = _timeout_s(run) / 2

    async def off() -> bool:
        return await _is_off(work)

    kinds = (DomainEventKind.REBOOTED, *_OFF)
    with work.host.signals.expecting(domain, *kinds) as happened:
        method = "reset"
        if await hypervisor.find_state(domain) is DomainState.RUNNING:
            if await hypervisor.shutdown_by_agent(domain, reboot=True) and await _wait_until(run, happened, off, half):
                method = "agent"
            else:
                await hypervisor.shutdown_by_acpi(domain, reboot=True)
                if await _wait_until(run, happened, off, half):
                    method = "acpi"
        if method == "reset" and not await off():
            await hypervisor.reset(domain)
    await hypervisor.ensure_started(domain)  # a guest that went off instead of around, and a paused one
    return {"method": method}


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
