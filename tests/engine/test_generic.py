"""The three generic tests, for every kind of operation and every step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fake_bench import FakeBench

from internal_api.workflows import STEP_NAMES
from terrace.engine import testing
from terrace.engine.testing import ALWAYS, Faults, Point, World, points

KINDS = sorted(STEP_NAMES)
UNDOABLE = (
    "image_capture",
    "image_import",
    "snapshot_create",
    "vm_create",
    "vm_start",
    "volume_attach",
    "volume_create",
    "volume_detach",
    "volume_resize",
)
BEYOND_RETURN = sorted(set(KINDS) - set(UNDOABLE))
_CLAIMED = [kind for kind in KINDS if STEP_NAMES[kind][0] == "claim"]  # their first step is the insertion itself

Worlds = tuple[World, World]


def steps_of(kind: str, phase: str) -> list[str]:
    """The steps that the worker does, or takes back."""
    return STEP_NAMES[kind][1:] if phase == "do" and kind in _CLAIMED else STEP_NAMES[kind]


def around_steps(kinds: Sequence[str], phase: str) -> Any:
    """Every place around every step of these kinds."""
    cases = [
        pytest.param(kind, point, id=f"{kind}-{point}")
        for kind in kinds
        for point in points(steps_of(kind, phase), phase)
    ]
    return pytest.mark.parametrize(("kind", "point"), cases)


def untouched(kind: str, worlds: Worlds, *, done: bool = True) -> World:
    """What an operation that was undone leaves: nothing, or of a start only that it failed.

    ``done``: the last step had been done. What has grown stays so, as no disk ever shrinks.
    """
    before, after = worlds
    if kind == "volume_resize" and done:
        return {**before, "hv1-domains": after["hv1-domains"], "hv1-volumes": after["hv1-volumes"]}
    if kind != "vm_start":
        return before
    (id_, name, status, _, *rest, _, started), *_ = before["vms"]
    return {**before, "vms": [(id_, name, status, "running", *rest, "operation_failed", started)]}


@pytest.mark.parametrize(("kind", "step"), [(kind, step) for kind in KINDS for step in steps_of(kind, "do")])
async def test_every_step_runs_twice(kind: str, step: str, bench: FakeBench, worlds: Worlds) -> None:
    await testing.check_step_runs_twice(bench, step, worlds[1])


@around_steps(KINDS, "do")
async def test_a_step_that_fails_is_tried_again(kind: str, point: Point, bench: FakeBench, worlds: Worlds) -> None:
    await testing.check_failure_is_retried(bench, point, worlds[1])


@around_steps(UNDOABLE, "do")
async def test_failure_leaves_nothing(kind: str, point: Point, bench: FakeBench, worlds: Worlds) -> None:
    done = point == Point(STEP_NAMES[kind][-1], "do", "after")
    await testing.check_failure_is_undone(bench, point, untouched(kind, worlds, done=done))


@pytest.mark.parametrize("kind", ["snapshot_restore"])
async def test_a_restore_that_can_not_succeed_touches_nothing(kind: str, bench: FakeBench, worlds: Worlds) -> None:
    bench.faults.plan(Point("check", "do", "before"), "permanent")
    assert (await bench.run()).state == "failed"
    assert await bench.world() == worlds[0]


@around_steps(UNDOABLE, "undo")
async def test_undoing_that_fails_is_tried_again(kind: str, point: Point, bench: FakeBench, worlds: Worlds) -> None:
    bench.faults.plan(Point(steps_of(kind, "do")[-1], "do", "after"), "permanent")
    await testing.check_failure_is_retried(bench, point, untouched(kind, worlds), state="failed")


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (kind, step)
        for kind in KINDS
        for step in steps_of(kind, "undo" if kind in UNDOABLE else "do")
        if (kind, step) != ("snapshot_restore", "check")  # which can be undone
    ],
)
async def test_what_is_hopeless_ends_stuck_and_can_be_deleted(kind: str, step: str, bench: FakeBench) -> None:
    empty = {"vms": [], "addresses": [], "live": [], "hv1-domains": [], "hv1-blobs": [], "snapshots": []}
    if kind in UNDOABLE:
        bench.faults.plan(Point(steps_of(kind, "do")[-1], "do", "after"), "permanent")
        bench.faults.plan(Point(step, "undo", "before"), "transient", ALWAYS)
    else:
        bench.faults.plan(Point(step, "do", "after"), "transient", ALWAYS)
    op = await bench.run()
    assert op.state == "stuck"
    assert op.finished_at is not None
    assert op.error is not None
    world = await bench.world()
    if kind.startswith("volume"):
        assert [(row[2], row[8]) for row in world["volumes"]] == [("error", op.error["code"])]
    if kind.startswith("snapshot"):
        # one that can't be restored now is as good as before
        assert [row[2] for row in world["snapshots"]] == ["available" if kind == "snapshot_restore" else "error"]
    if not kind.startswith("vm") and kind != "snapshot_restore":
        assert [row[2] for row in world["vms"]] in ([], ["running"])
        return
    assert [row[2] for row in world["vms"]] == ["error"]
    bench.faults.planned.clear()
    if kind == "vm_delete":  # a second request, and not a repetition of the first
        await bench.conn.execute("delete from idempotency_keys where route = 'TEST vm_delete'")
    assert (await bench.do("vm_delete")).state == "succeeded"
    world = await bench.world()
    assert {name: world[name] for name in empty} == empty
    assert world["nodes"] == [("hv1", 0, 0)]
    assert [row[1] for row in world["pools"]] == [5 if kind == "snapshot_restore" else 0]  # its volume is kept
    assert world["hv1-filters"] == []


@around_steps(KINDS, "do")
async def test_killed_is_finished(kind: str, point: Point, bench: FakeBench, worlds: Worlds) -> None:
    faults = Faults(kind)
    faults.plan(point, "kill")
    await testing.check_killed_is_finished(bench, faults, worlds[1])


@around_steps(UNDOABLE, "undo")
async def test_killed_while_undoing_is_undone(kind: str, point: Point, bench: FakeBench, worlds: Worlds) -> None:
    faults = Faults(kind)
    faults.plan(Point(steps_of(kind, "do")[-1], "do", "after"), "permanent")
    faults.plan(point, "kill")
    await testing.check_killed_is_finished(bench, faults, untouched(kind, worlds), state="failed")
