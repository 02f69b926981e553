"""The three generic tests that every workflow passes, and the faults that they are made of.

A bench (see :class:`Bench`) offers one kind of operation in a world of its own. The checks disturb it at
one point of one step and look at what remains: every step may run twice; what fails is undone as if it
had never been; what is killed is finished or undone by the next process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Protocol

from terrace.errors import Permanent, Transient
from terrace.store.operations import Event, Operation

Fault = Literal["lost", "transient", "outage", "permanent", "kill"]
ALWAYS: Final = 1_000_000
World = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """A place in an operation: ``before`` or ``after`` a step is done (``do``) or taken back (``undo``)."""

    step: str
    phase: str
    moment: str

    def __str__(self) -> str:
        return f"{self.moment}-{self.phase}-{self.step}"


def points(steps: Sequence[str], phase: str) -> list[Point]:
    """Both places around each of the steps."""
    return [Point(step, phase, moment) for step in steps for moment in ("before", "after")]


@dataclass(slots=True)
class Faults:
    """A worker's probe that misbehaves around steps of one kind of operation.

    ``lost`` is a failure of the database's connection: after a step's ``do`` it makes the step run again.
    """

    kind: str
    planned: dict[Point, tuple[Fault, int]] = field(default_factory=dict)
    struck: list[Point] = field(default_factory=list)

    def plan(self, point: Point, fault: Fault, times: int = 1) -> None:
        """Misbehave at a point, so many times."""
        self.planned[point] = (fault, times)

    async def __call__(self, op: Operation, step: str, phase: str, moment: str) -> None:
        point = Point(step, phase, moment)
        fault, left = self.planned.get(point, ("lost", 0))
        if op.kind != self.kind or left == 0:
            return
        self.planned[point] = (fault, left - 1)
        self.struck.append(point)
        _strike(fault, point)


def _strike(fault: Fault, point: Point) -> NoReturn:
    match fault:
        case "lost":
            raise ConnectionResetError(f"injected {point}")
        case "transient":
            raise Transient("service_unavailable", "Injected fault.", internal=str(point))
        case "outage":
            raise Transient("storage_unavailable", "Injected outage.", internal=str(point))
        case "permanent":
            raise Permanent("operation_failed", "Injected fault.", internal=str(point))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("unreachable")


class Bench(Protocol):
    """One kind of operation, in a world of its own that is ready for it."""

    @property
    def faults(self) -> Faults:
        """The probe of the bench's worker."""
        ...

    async def world(self) -> World:
        """Everything that an operation could leave behind, comparable between two benches."""
        ...

    async def run(self) -> Operation:
        """Begin the operation, wait for its end, and return it as it is stored."""
        ...

    async def run_until_killed(self, faults: Faults) -> None:
        """Begin the operation in a process with these faults, that dies of them; then restart, and wait."""
        ...

    async def newest(self) -> tuple[Operation, Sequence[Event]]:
        """The newest operation of the kind, as it is stored, and its events."""
        ...


async def check_step_runs_twice(bench: Bench, step: str, expected: World) -> None:
    """What a step did can't be saved: it runs again, and nobody can tell afterwards."""
    bench.faults.plan(Point(step, "do", "after"), "lost")
    op = await bench.run()
    assert bench.faults.struck, f"{step} was not reached"
    assert op.state == "succeeded", op.error
    _, events = await bench.newest()
    assert [(event.ok, event.attempt) for event in events if event.step == step] == [(False, 1), (True, 2)]
    assert await bench.world() == expected


async def check_failure_is_undone(bench: Bench, point: Point, untouched: World) -> None:
    """A step fails for good: it and all before it are taken back, and nothing is left."""
    bench.faults.plan(point, "permanent", ALWAYS)
    op = await bench.run()
    assert op.state == "failed", f"{op.state} at {op.cursor}"
    assert op.error is not None
    assert op.error["code"] == "operation_failed"
    assert op.finished_at is not None
    _, events = await bench.newest()
    failed = list(op.steps).index(point.step)
    undone = [event.step for event in events if event.phase == "undo" and event.ok]
    assert undone == list(reversed(op.steps[: failed + 1]))
    assert await bench.world() == untouched


async def check_failure_is_retried(bench: Bench, point: Point, expected: World, *, state: str = "succeeded") -> None:
    """A step, or its undoing, fails twice in a way that may pass: the third attempt does it."""
    bench.faults.plan(point, "transient", 2)
    op = await bench.run()
    assert len(bench.faults.struck) >= 2, f"{point} was not reached"
    assert op.state == state, op.error
    _, events = await bench.newest()
    attempts = [event.ok for event in events if (event.step, event.phase) == (point.step, point.phase)]
    assert attempts == [False, False, True]
    assert await bench.world() == expected


async def check_killed_is_finished(bench: Bench, faults: Faults, expected: World, *, state: str = "succeeded") -> None:
    """The process is killed: the next one carries the operation to its end."""
    await bench.run_until_killed(faults)
    op, events = await bench.newest()
    assert op.state == state, op.error
    done = {event.step for event in events if event.phase == "do" and event.ok}
    if state == "succeeded":
        assert done == set(op.steps)
    assert await bench.world() == expected
