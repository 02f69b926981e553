"""Images in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from terrace.api.body import Body, refuse_nul
from terrace.api.name import Name
from terrace.store.images import Image

Checksum = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class ImageCreate(Body):
    """An image to import from a URL, or to copy from a VM's system disk or a snapshot of it."""

    name: Name = Field(examples=["debian-12"])
    url: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^https?://[!-~]+$",
        examples=["https://images.example.org/debian-12.qcow2"],
    )
    checksum: Checksum | None = Field(default=None, description="With `url`: `sha256:` and 64 hexadecimal digits")
    format: Literal["qcow2", "raw"] | None = Field(
        default=None, description="With `url`: the file's format; found by looking, if absent"
    )
    vm: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        examples=["web-1"],
        description="Name or id of a VM, instead of `url`",
    )
    snapshot: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        examples=["before-upgrade"],
        description="With `vm`: name or id of one of its snapshots; without, the disk as it is now",
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.url is None) == (self.vm is None):
            raise ValueError("give either url or vm")
        if self.vm is None and self.snapshot is not None:
            raise ValueError("snapshot goes with vm")
        if self.vm is not None and (self.checksum is not None or self.format is not None):
            raise ValueError("checksum and format go with url")
        return self

    @field_validator("vm", "snapshot")
    @classmethod
    def _refs_are_text(cls, ref: str | None) -> str | None:
        return None if ref is None else refuse_nul(ref)

    @field_validator("url")
    @classmethod
    def _url_names_a_host(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://absent")
        if not parts.hostname or parts.port == 0:  # reading the port raises ValueError when it is none
            raise ValueError("must be a URL with a host")
        return url


class ImageOut(BaseModel):
    """A golden image."""

    id: int
    name: str = Field(examples=["tiny"])
    status: str = Field(examples=["available"], description="importing or available")
    format: str | None = Field(examples=["qcow2"])
    size_bytes: int | None
    min_disk_gib: int | None = Field(description="Smallest disk_gib of a VM made from it")
    checksum: str | None = Field(examples=["sha256:…"])
    operation: int | None = Field(description="The operation that imports it from a URL, or copies it")
    created_at: datetime


def image_view(image: Image) -> dict[str, Any]:
    """An image as :class:`ImageOut` describes it."""
    return {
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "format": image.format,
        "size_bytes": image.size_bytes,
        "min_disk_gib": image.min_disk_gib,
        "checksum": f"sha256:{image.sha256}" if image.sha256 else None,
        "operation": image.operation_id,
        "created_at": image.created_at,
    }
