"""Processes of a Ceph cluster: started into sessions of their own, found again by their records."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from terrace.stack import commands, log_files, process_record
from terrace.stack.ceph_settings import CephSettings
from terrace.stack.errors import StackError
from terrace.stack.process_record import ProcessId

STOP_S = 20.0


class Daemons:
    """Which daemons of one cluster run; they outlive the command that started them."""

    def __init__(self, settings: CephSettings) -> None:
        self._settings = settings
        self.names = settings.daemons

    def living(self) -> dict[str, ProcessId]:
        """Those that run, by name; a frozen one runs too."""
        recorded = process_record.living(self._settings.pids)
        return {name: recorded[name] for name in self._settings.daemons if name in recorded}

    def start(self, name: str) -> None:
        """Starts one that doesn't run."""
        kind, _, number = name.partition(".")
        command = (f"ceph-{kind}", "-f", "--conf", str(self._settings.conf), "--id", number)
        if self._settings.log_of(name).exists():
            log_files.rotate(self._settings.log_of(name))
        with self._settings.output_of(name).open("wb") as output:
            process = _spawn(command, commands.member_environment(), output.fileno())
        process_record.write(self._settings.pids, name, process.pid)

    def kill(self, name: str, number: int) -> None:
        """Raises StackError when it doesn't run. After SIGKILL it is gone when this returns."""
        process = self.find(name)
        if number == signal.SIGKILL:
            self._end({name: process}, signal.SIGKILL)
        else:
            os.kill(process.pid, number)

    def find(self, name: str) -> ProcessId:
        process = self.living().get(name)
        if process is None:
            raise StackError(f"Ceph's {name} is not running.")
        return process

    def stop(self, names: Iterable[str], number: signal.Signals = signal.SIGTERM) -> None:
        """Ends these, and waits; those that the others need, the monitors, last."""
        names = list(names)
        for kind in ("osd", "mgr", "mon"):
            living = self.living()
            self._end({name: living[name] for name in names if name in living and name.startswith(kind)}, number)

    def _end(self, ending: Mapping[str, ProcessId], number: signal.Signals) -> None:
        if number != signal.SIGKILL:
            for process in ending.values():  # a frozen one would not hear
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
        process_record.end(list(ending.values()), number, STOP_S)
        for name, process in ending.items():
            _wait_threads(process)
            with contextlib.suppress(ChildProcessError):  # most often it is another's child
                os.waitpid(process.pid, os.WNOHANG)
            process_record.remove(self._settings.pids, name)

    def last_words(self, name: str, lines: int = 12) -> str:
        """The end of what it complained about since it started, else of its log."""
        complaints = log_files.tail(self._settings.output_of(name), 4 * lines).split("\n")
        found = [line for line in complaints if line][-lines:]
        return "\n".join(found) or log_files.tail(self._settings.log_of(name), lines)


def _spawn(command: tuple[str, ...], env: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise StackError(f"{command[0]} is not installed; scripts/ceph up installs it.") from None
    process.returncode = 0  # not waited for: it stays when we end
    return process


def _wait_threads(process: ProcessId) -> None:
    """The last of a dead process's threads may still hold its files and addresses for a moment."""
    deadline = time.monotonic() + STOP_S
    with contextlib.suppress(OSError):  # reaped
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)


def resident_mib(process: ProcessId) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)
