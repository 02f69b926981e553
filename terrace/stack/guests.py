"""Stopping the guests of a stack: politely while their libvirtd answers, surely in any case."""

import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from terrace.stack import commands, hypervisor, process_record
from terrace.stack.errors import StackError
from terrace.stack.process_record import ProcessId
from terrace.stack.settings import StackSettings

GRACE_S = 8.0
# QEMU flushes its disks on SIGTERM
FLUSH_S = 3.0


def shut_down(settings: StackSettings) -> int:
    """ACPI to all running guests at once, power off for those that don't follow. How many there were."""
    with ThreadPoolExecutor(max_workers=len(settings.hypervisors)) as pool:
        return sum(pool.map(lambda name: _shut_down_node(hypervisor.uri(settings.layout, name)), settings.hypervisors))


def _shut_down_node(uri: str) -> int:
    try:
        running = _domains(uri, "--state-running")
        others = [name for name in _domains(uri, "--state-paused", "--state-other") if name not in running]
        for name in running:
            commands.succeeds(*_virsh(uri), "shutdown", name)
        deadline = time.monotonic() + GRACE_S
        left = running
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            left = _domains(uri, "--state-running")
        for name in left + others:
            commands.succeeds(*_virsh(uri), "destroy", name)
    except StackError:  # this libvirtd doesn't answer: `end_all` finds its guests without it
        return 0
    return len(running) + len(others)


def _virsh(uri: str) -> tuple[str, ...]:
    return ("virsh", "-q", "-c", uri)


def _domains(uri: str, *states: str) -> list[str]:
    return commands.run(*_virsh(uri), "list", "--uuid", *states, timeout_s=10).split()


def end_all(nodes: Iterable[Path]) -> int:
    """Ends every process that lives in one of these nodes' views: guests, or a stray libvirtd."""
    found = [process for node in nodes for process in _processes_of(node)]
    process_record.end(found, signal.SIGTERM, FLUSH_S)
    return len(found)


def _processes_of(node: Path) -> list[ProcessId]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    mine = [process_record.process_id(pid) for pid in pids if hypervisor.is_process_of(pid, node)]
    return [process for process in mine if process is not None]
