"""Images in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StringConstraints, field_validator

from terrace.api.body import Body
from terrace.api.vm import check_name
from terrace.store.images import Image

Checksum = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class ImageCreate(Body):
    """An image to import from a URL."""

    name: str = Field(min_length=1, max_length=63, examples=["debian-12"])
    url: str = Field(
        max_length=2048, pattern=r"^https?://[!-~]+$", examples=["https://images.example.org/debian-12.qcow2"]
    )
    checksum: Checksum | None = Field(default=None, description="`sha256:` and 64 hexadecimal digits")
    format: Literal["qcow2", "raw"] | None = Field(default=None, description="Found by looking, if absent")

    @field_validator("name")
    @classmethod
    def _name_is_label(cls, name: str) -> str:
        return check_name(name)

    @field_validator("url")
    @classmethod
    def _url_names_a_host(cls, url: str) -> str:
        parts = urlsplit(url)
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
    operation: int | None = Field(description="The operation that imports it from a URL")
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
