"""What an operation is made of: steps that may run twice, and how to take each one back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from terrace.db import Conn
from terrace.store.operations import Operation

C = TypeVar("C")
T = TypeVar("T")


class Superseded(Exception):
    """The operation is no longer this worker's to carry on."""


@dataclass(frozen=True, slots=True)
class VmChange:
    """What a finished step makes of its VM's row, in the statement that saves the step."""

    status: str
    started: bool = False


@dataclass(frozen=True, slots=True)
class Step(Generic[C]):
    """One step of a workflow.

    ``do`` is an ``ensure_*``: it may run twice, and what it returns is merged into the operation's
    result. ``undo`` tolerates that nothing is there, and runs for a failed step too. ``record`` and
    ``unrecord`` write to PostgreSQL in the transaction that saves the step done or undone.
    """

    name: str
    do: Callable[[C, Run], Awaitable[Mapping[str, Any] | None]] | None = None
    undo: Callable[[C], Awaitable[None]] | None = None
    record: Callable[[Conn, C], Awaitable[None]] | None = None
    unrecord: Callable[[Conn, C], Awaitable[None]] | None = None
    sets: VmChange | Callable[[Operation], VmChange] | None = None


@dataclass(frozen=True, slots=True)
class Workflow(Generic[C]):
    """A kind of operation. From the step number ``no_return`` on, steps are only retried."""

    kind: str
    load: Callable[[Operation], Awaitable[C]]
    steps: tuple[Step[C], ...]
    no_return: int
    attempts: int = 5
    # after the point of no return: how often before it ends stuck (with the longest pauses)
    stubborn_attempts: int = 60
    failed_vm: VmChange | None = None  # what the VM is when the operation was undone, if it still exists
    stuck_vm: VmChange | None = VmChange("error")  # what it is when nothing helps any more
    gave_up: Callable[[Conn, C], Awaitable[None]] | None = None  # writes what else is not as it should be, then

    @property
    def step_names(self) -> list[str]:
        """Names of the steps, as stored with each operation."""
        return [step.name for step in self.steps]


@dataclass(slots=True)
class Run:
    """One execution of an operation: what its steps may ask of the worker."""

    op: Operation
    slots: asyncio.Semaphore  # how many runs may work at once; this one has a slot
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Whether ``event`` came within ``timeout_s`` seconds; raises Superseded when interrupted.

        Another run has the slot meanwhile: guests that take their time must not hold up a node.
        """
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.interrupted.wait())]
        self.slots.release()
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await self.slots.acquire()
        self.leave_if_interrupted()
        return event.is_set()

    def leave_if_interrupted(self) -> None:
        """Raise Superseded when the operation is no longer wanted, or its worker is told to end."""
        if self.interrupted.is_set():
            raise Superseded

    async def unless_interrupted(self, asking: Coroutine[Any, Any, T]) -> T:
        """What ``asking`` returns; raises Superseded, and asks no longer, when interrupted."""
        asked = asyncio.ensure_future(asking)
        interruption = asyncio.ensure_future(self.interrupted.wait())
        try:
            await asyncio.wait([asked, interruption], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Superseded
            return asked.result()
        finally:
            asked.cancel()
            interruption.cancel()

    async def sleep(self, seconds: float) -> None:
        """Sleep; raises Superseded when interrupted."""
        await self.wait(asyncio.Event(), seconds)
