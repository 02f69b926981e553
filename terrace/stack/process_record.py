"""Notes of which process is which member, so that a dead supervisor's members can be found and ended."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from terrace.stack.errors import StackError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from a later one of the same number by its start (proc(5), stat field 22)."""

    pid: int
    started_ticks: int

    def is_alive(self) -> bool:
        return process_id(self.pid) == self


def process_id(pid: int) -> ProcessId | None:
    """None when there is no such process, or only its remains (a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def write(directory: Path, name: str, pid: int) -> None:
    process = process_id(pid)
    if process is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"{process.pid} {process.started_ticks} {BOOT_ID.read_text().strip()}\n")


def remove(directory: Path, name: str) -> None:
    (directory / name).unlink(missing_ok=True)


def living(directory: Path) -> dict[str, ProcessId]:
    """Recorded processes that still run, by member name."""
    found = {}
    for path in sorted(directory.glob("*")) if directory.is_dir() else []:
        match path.read_text().split():
            case [pid, ticks, boot] if boot == BOOT_ID.read_text().strip():
                process = ProcessId(int(pid), int(ticks))
                if process.is_alive():
                    found[path.name] = process
    return found


def signal_number(text: str) -> int:
    """A signal's number from its name, with or without SIG, or from the number itself."""
    try:
        return int(text) if text.isdigit() else signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except KeyError:
        raise StackError(f"There is no signal {text}.") from None


def end(processes: list[ProcessId], number: signal.Signals, patience_s: float) -> None:
    """Ends processes that aren't our children: by this signal, and after a while by SIGKILL."""
    for attempt in (number, signal.SIGKILL):
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, attempt)
        deadline = time.monotonic() + patience_s
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
            time.sleep(0.02)
