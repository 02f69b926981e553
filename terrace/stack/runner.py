"""The life of one member: start, become ready, end, start again."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from terrace.stack import process_record
from terrace.stack.member import Member, State
from terrace.stack.probe import passes
from terrace.stack.reaper import Child, Reaper

PROBE_PAUSE_S = 0.05
RESTART_S = 0.1
LONGEST_BACKOFF_S = 5.0
# a life this long after readiness counts as health: the next restart is at once
HEALTHY_LIFE_S = 5.0
# a member that has never been ready gives up after this many attempts
ATTEMPTS = 3


class Runner:
    """Keeps one member as it is wanted. All methods are for the supervisor's event loop."""

    def __init__(self, member: Member, reaper: Reaper, log: Path, pids: Path) -> None:
        self.member = member
        self.state = State.STOPPED
        self.restarts = 0
        self.since = time.time()
        self.reason = ""
        self.well = asyncio.Event()
        self._reaper = reaper
        self._log = log
        self._pids = pids
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._kill_wanted = False

    def start(self, needs: Iterable["Runner"]) -> None:
        """Starts unless it is already on its way; waits for `needs` first."""
        if self._task is None or self._task.done():
            self._enter(State.WAITING)
            self._task = asyncio.create_task(self._live(tuple(needs)), name=self.member.name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._end_child()
        self._enter(State.STOPPED)

    async def kill(self, number: int) -> bool:
        """Sends a signal to the main process alone; False when there is none. It is started again at once.

        After SIGKILL it is gone when this returns, so that its next readiness is that of a new process.
        """
        child = self._child
        if child is None or child.exited.done():
            return False
        self._kill_wanted = True
        child.signal(number)
        if number == signal.SIGKILL:
            await child.wait()
            self._enter(State.BACKOFF, _ending(-number))
        return True

    async def answers(self) -> bool:
        """Whether all its probes pass now."""
        return all([await passes(probe, self._run_probe) for probe in self.member.ready])

    def describe(self) -> dict[str, Any]:
        alive = self._child is not None and not self._child.exited.done()
        return {
            "name": self.member.name,
            "state": self.state.value,
            "pid": self._child.pid if self._child and alive else None,
            "restarts": self.restarts,
            "since": self.since,
            "ports": list(self.member.ports),
            "reason": self.reason,
        }

    def _enter(self, state: State, reason: str = "") -> None:
        self.state, self.reason, self.since = state, reason, time.time()
        if state.is_well:
            self.well.set()
        else:
            self.well.clear()

    async def _live(self, needs: tuple["Runner", ...]) -> None:
        for other in needs:
            await other.well.wait()
        ever_ready, failures = False, 0
        while True:
            ready_for_s, ending = await self._one_life()
            killed, self._kill_wanted = self._kill_wanted, False
            if self.member.once:
                return
            ever_ready = ever_ready or ready_for_s is not None
            if killed or (ready_for_s is not None and ready_for_s >= HEALTHY_LIFE_S):
                failures = 0
            if not ever_ready and failures + 1 >= ATTEMPTS:
                self._enter(State.FAILED, f"{ending}, {ATTEMPTS} times before it was ready")
                return
            self._enter(State.BACKOFF, ending)
            await asyncio.sleep(min(RESTART_S * 3**failures, LONGEST_BACKOFF_S))
            failures += 1
            self.restarts += 1

    async def _one_life(self) -> tuple[float | None, str]:
        """Runs it until it ends. How long it was ready (None: never), and how it ended in words."""
        self._enter(State.STARTING)
        try:
            child = self._child = self._reaper.spawn(self.member.command, self.member.env, self._log)
        except OSError as error:
            ending = f"could not be started: {error.strerror}: {error.filename}"
            if self.member.once:
                self._enter(State.FAILED, ending)
            return None, ending
        process_record.write(self._pids, self.member.name, child.pid)
        if self.member.once:
            status = await child.wait()
            self._forget_child()
            ending = _ending(status)
            self._enter(State.DONE) if status == 0 else self._enter(State.FAILED, ending)
            return None, ending
        ready_at = await self._become_ready(child)
        if ready_at is None and not child.exited.done():
            await self._end_child()
            return None, f"was not ready within {self.member.start_timeout_s:g} s"
        status = await child.wait()
        self._forget_child()
        return (None if ready_at is None else time.monotonic() - ready_at), _ending(status)

    async def _become_ready(self, child: Child) -> float | None:
        """The moment (monotonic) when all probes passed; None if it ended or took too long."""
        deadline = time.monotonic() + self.member.start_timeout_s
        while time.monotonic() < deadline:
            if await self.answers() and not child.exited.done():
                self._enter(State.READY)
                return time.monotonic()
            await asyncio.wait([child.exited], timeout=PROBE_PAUSE_S)
            if child.exited.done():
                return None
        return None

    async def _run_probe(self, command: tuple[str, ...]) -> int:
        probe = self._reaper.spawn(command, self.member.env, None)
        try:
            return await probe.wait()
        finally:
            probe.kill_group()

    async def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        child.signal(getattr(signal, self.member.stop_signal))
        await asyncio.wait([child.exited], timeout=self.member.stop_timeout_s)
        child.signal(signal.SIGKILL)
        await child.wait()
        self._forget_child()

    def _forget_child(self) -> None:
        if self._child is not None:
            if self.member.kills_group:
                self._child.kill_group()
            process_record.remove(self._pids, self.member.name)
            self._child = None


def _ending(status: int) -> str:
    if status < 0:
        return f"ended by signal {signal.Signals(-status).name}"
    return f"ended with status {status}"
