"""Snapshots in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from terrace.api.body import Body
from terrace.api.name import Name
from terrace.store.snapshots import SnapshotView


class SnapshotCreate(Body):
    """A snapshot to take."""

    name: Name = Field(examples=["before-upgrade"], description="RFC 1123 label, not all digits, unique for its VM")


class SnapshotRestore(Body):
    """How a snapshot is to be restored."""

    force: bool = Field(
        default=False,
        description="Power a running VM off for it, and start it again after; without this only a VM that is off is"
        " restored",
    )


class SnapshotDisk(BaseModel):
    """One disk of a snapshot."""

    volume: str | None = Field(examples=["data"], description="Name of the volume; null for the system disk")
    size_gib: int = Field(examples=[10], description="Its size when the snapshot was taken")


class SnapshotOut(BaseModel):
    """A point in time of all disks of a VM."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["before-upgrade"])
    status: str = Field(examples=["available"], description="creating, available, restoring, deleting or error")
    consistency: Literal["filesystem", "crash"] | None = Field(
        examples=["filesystem"],
        description="filesystem: the guest agent had written and frozen all file systems, or the VM had been shut"
        " down; crash: each disk as after a loss of power, of several disks on Ceph not all at the same instant;"
        " null: not yet taken",
    )
    vm: int = Field(examples=[1])
    vm_name: str = Field(examples=["web-1"])
    disks: list[SnapshotDisk]
    created_at: datetime
    operation: int | None = Field(examples=[17], description="The snapshot's newest operation")


def snapshot_view(snapshot: SnapshotView) -> dict[str, Any]:
    """A snapshot as :class:`SnapshotOut` describes it."""
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "status": snapshot.status,
        "consistency": snapshot.consistency,
        "vm": snapshot.vm_id,
        "vm_name": snapshot.vm_name,
        "disks": list(snapshot.disks),
        "created_at": snapshot.created_at,
        "operation": snapshot.operation_id,
    }
