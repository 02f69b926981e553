"""Import an image from a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from internal_api.drivers.protocols import ImageFacts
from internal_api.workflows import image_bytes
from terrace.db import Conn, in_transaction
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


def facts_of(facts: ImageFacts) -> dict[str, Any]:
    """What the ``images`` table keeps of a stored image."""
    return {
        "format": facts.format,
        "sha256": facts.sha256,
        "size_bytes": facts.size_bytes,
        "min_disk_gib": max(1, -(-facts.virtual_bytes // _GIB)),
    }


async def keep(host: Host, image_id: ImageId, facts: ImageFacts) -> None:
    """Record which bytes an image is to have; Transient when they have left the pool meanwhile."""
    async with image_bytes.stored(host, facts.sha256) as confirm:

        async def work(conn: Conn) -> None:
            await images.set_facts(conn, image_id, node=host.node, **facts_of(facts))
            await confirm(conn)

        await in_transaction(host.pool, work)


async def remove_kept(host: Host, image_id: ImageId) -> None:
    """Remove the bytes that an image was to have, unless another image has them."""
    async with host.pool.acquire() as conn:
        image = await images.find_by_id(conn, image_id)
    if image is not None and image.sha256 is not None:
        await image_bytes.remove_unwanted(host, image.sha256, but=image_id)


async def _download(work: ImageWork, run: Run) -> Mapping[str, Any]:
    params = run.op.params
    checksum = params.get("checksum")
    facts = await work.host.storage.import_image(
        image_bytes.download(work.host, params["url"]),
        format=params.get("format"),
        checksum=checksum.removeprefix("sha256:") if checksum else None,
        max_bytes=work.host.settings.max_image_bytes,
    )
    await keep(work.host, work.image_id, facts)
    return facts_of(facts)


async def _remove(work: ImageWork) -> None:
    await remove_kept(work.host, work.image_id)


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
