"""Import an image from a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from internal_api.drivers.protocols import ImageFacts
from internal_api.workflows import image_bytes
from terrace.db import Conn
from terrace.engine.step import Run, Step, Workflow
from terrace.store import images
from terrace.store.operations import Operation
from terrace.types import ImageId

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "image_import"
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class ImageWork:
    """An image whose bytes are still to come."""

    host: Host
    op: Operation
    image_id: ImageId
    stored: set[str] = field(default_factory=set)  # checksums of what this run has put into the pool


def facts_of(facts: ImageFacts) -> dict[str, Any]:
    """What the ``images`` table keeps of a stored image."""
    return {
        "format": facts.format,
        "sha256": facts.sha256,
        "size_bytes": facts.size_bytes,
        "min_disk_gib": max(1, -(-facts.virtual_bytes // _GIB)),
    }


async def _download(work: ImageWork, run: Run) -> Mapping[str, Any]:
    params = run.op.params
    checksum = params.get("checksum")
    facts = await work.host.storage.import_image(
        image_bytes.download(work.host, params["url"]),
        format=params.get("format"),
        checksum=checksum.removeprefix("sha256:") if checksum else None,
        max_bytes=work.host.settings.max_image_bytes,
    )
    work.stored.add(facts.sha256)
    return facts_of(facts)


async def _remove(work: ImageWork) -> None:
    for sha256 in work.stored:
        await image_bytes.remove_unwanted(work.host, sha256)


async def _register(conn: Conn, work: ImageWork) -> None:
    await images.set_available(conn, work.image_id, node=work.host.node, **work.op.result)


async def _forget(conn: Conn, work: ImageWork) -> None:
    await images.delete(conn, work.image_id)


_STEPS: Final[tuple[Step[ImageWork], ...]] = (
    Step("claim", unrecord=_forget),
    Step("download", do=_download, undo=_remove, record=_register),
)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[ImageWork]:
    """The workflow on this node."""

    async def load(op: Operation) -> ImageWork:
        assert op.image_id is not None
        return ImageWork(host, op, op.image_id)

    return Workflow(KIND, load, _STEPS, no_return=len(_STEPS))
