"""Operations in answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from terrace.store.operations import Event, Operation


class StepOut(BaseModel):
    """One step of an operation; times are those of its last attempt."""

    name: str = Field(examples=["volume"])
    state: str = Field(examples=["done"], description="pending, done, failed or undone")
    attempts: int = Field(examples=[1])
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None = Field(examples=[12.5])
    error: dict[str, str] | None


class OperationOut(BaseModel):
    """A change of the world, and how far it has come."""

    id: int = Field(examples=[17])
    kind: str = Field(examples=["vm_create"])
    vm: int | None = Field(examples=[1])
    vm_name: str | None = Field(examples=["test-1"])
    image: int | None
    volume: int | None
    snapshot: int | None
    node: str = Field(examples=["hv1"])
    state: str = Field(
        examples=["succeeded"],
        description="pending, running, undoing, succeeded, failed, stuck or superseded",
    )
    steps: list[StepOut]
    result: dict[str, Any] = Field(examples=[{"method": "acpi"}])
    error: dict[str, str] | None
    request_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def operation_view(op: Operation, events: Sequence[Event]) -> dict[str, Any]:
    """An operation as :class:`OperationOut` describes it."""
    return {
        "id": op.id,
        "kind": op.kind,
        "vm": op.vm_id,
        "vm_name": op.vm_name,
        "image": op.image_id,
        "volume": op.volume_id,
        "snapshot": op.snapshot_id,
        "node": op.node,
        "state": op.state,
        "steps": [_step_view(name, [event for event in events if event.step == name]) for name in op.steps],
        "result": op.result,
        "error": op.error,
        "request_id": op.request_id,
        "created_at": op.created_at,
        "started_at": op.started_at,
        "finished_at": op.finished_at,
    }


def _step_view(name: str, events: Sequence[Event]) -> dict[str, Any]:
    tries = [event for event in events if event.phase == "do"]
    last = tries[-1] if tries else None
    if any(event.phase == "undo" and event.ok for event in events):
        state = "undone"
    elif last is None:
        state = "pending"
    else:
        state = "done" if last.ok else "failed"
    return {
        "name": name,
        "state": state,
        "attempts": len(tries),
        "started_at": last.started_at if last else None,
        "finished_at": last.started_at + timedelta(milliseconds=last.duration_ms) if last else None,
        "duration_ms": round(last.duration_ms, 3) if last else None,
        "error": next((event.error for event in reversed(events) if event.error), None),
    }
