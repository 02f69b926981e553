"""Starting child processes, and reaping every process that ends below us.

Guests are daemons of libvirtd: when they end, their nearest "child subreaper" is told (prctl(2)), else
process 1. libvirt waits for a destroyed guest to vanish from the process table, and some process 1
reap only every few seconds; so the supervisor is that subreaper, and reaps at once.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


class Reaper:
    """The only place that waits for children; asyncio's own child watchers would race with it."""

    def __init__(self) -> None:
        self._exits: dict[int, asyncio.Future[int]] = {}

    def install(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(self, command: tuple[str, ...], env: Mapping[str, str], log: Path | None) -> "Child":
        """Starts a process in a session of its own; raises OSError if it can't be."""
        with contextlib.ExitStack() as files:
            output = files.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # no await since the start: SIGCHLD's handler runs in this loop, so it can't have been missed
        self._exits[process.pid] = exited
        process.returncode = 0  # reaped here, never by subprocess
        return Child(process.pid, exited)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            exited = self._exits.pop(pid, None)
            if exited is not None and not exited.done():
                exited.set_result(os.waitstatus_to_exitcode(status))


class Child:
    """A process we started. `exited`: its exit status, negative for the signal that ended it."""

    def __init__(self, pid: int, exited: asyncio.Future[int]) -> None:
        self.pid = pid
        self.exited = exited

    def signal(self, number: int) -> None:
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Ends what it left behind in its process group (its own: it started a session)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self.exited)
