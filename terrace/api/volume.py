"""Volumes in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator

from terrace.api.body import Body, refuse_nul
from terrace.api.name import Name
from terrace.store.volumes import VolumeView

SizeGib = Annotated[int, Field(ge=1, le=65_536)]


def guest_device(volume_id: int) -> str:
    """Where a guest with udev finds a volume: by the serial number that its disk has."""
    return f"/dev/disk/by-id/virtio-volume-{volume_id}"


class VolumeCreate(Body):
    """A volume to create: an empty disk."""

    name: Name = Field(examples=["data"], description="RFC 1123 label, not all digits, unique in the project")
    size_gib: SizeGib = Field(examples=[20])


class VmVolumeCreate(VolumeCreate):
    """A volume to create together with its VM."""

    delete_with_vm: bool = Field(default=False, description="Whether it is deleted with its VM, or becomes available")


class VolumeAttach(Body):
    """The VM that a volume is to be plugged into."""

    vm: str = Field(min_length=1, max_length=63, examples=["web-1"], description="Name or id of a VM")
    delete_with_vm: bool = Field(default=False, description="Whether it is deleted with its VM, or becomes available")

    @field_validator("vm")
    @classmethod
    def _ref_is_text(cls, ref: str) -> str:
        return refuse_nul(ref)


class VolumeResize(Body):
    """The size that a volume is to have."""

    size_gib: SizeGib = Field(examples=[40], description="At least the present size: disks never shrink")


class VolumeOut(BaseModel):
    """A volume."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["data"])
    status: str = Field(
        examples=["in_use"], description="creating, available, attaching, in_use, detaching, deleting or error"
    )
    size_gib: int = Field(examples=[20])
    vm: int | None = Field(examples=[1], description="The VM that it is plugged into")
    vm_name: str | None = Field(examples=["web-1"])
    device: str | None = Field(
        examples=["/dev/disk/by-id/virtio-volume-1"], description="Its path in a guest with udev, when plugged in"
    )
    pool: str | None = Field(
        examples=["libvirt-pool"], description="null: nothing is stored before it is attached for the first time"
    )
    node: str | None = Field(examples=["hv1"], description="The node whose pool it lies in; null when all share one")
    delete_with_vm: bool
    created_at: datetime
    operation: int | None = Field(examples=[17], description="The volume's newest operation")
    error: dict[str, str] | None = Field(default=None, description="Why the last operation on the volume was given up")


def volume_view(volume: VolumeView) -> dict[str, Any]:
    """A volume as :class:`VolumeOut` describes it."""
    return {
        "id": volume.id,
        "name": volume.name,
        "status": volume.status,
        "size_gib": volume.size_gib,
        "vm": volume.vm_id,
        "vm_name": volume.vm_name,
        "device": guest_device(volume.id) if volume.vm_id is not None else None,
        "pool": volume.pool,
        "node": volume.node,
        "delete_with_vm": volume.delete_with_vm,
        "created_at": volume.created_at,
        "operation": volume.operation_id,
        "error": volume.error,
    }
