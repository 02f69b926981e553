"""Remove a deleted image's bytes from one node's pool.

Those that volumes are still cloned from stay, and the operation ends well: housekeeping begins another one later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from internal_api.workflows import image_bytes
from terrace.engine.step import Run, Step, Workflow
from terrace.store.operations import Operation

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "image_remove"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A checksum in this node's pool."""

    host: Host
    sha256: str


async def _remove(work: Bytes, _: Run) -> Mapping[str, Any] | None:
    clones = await image_bytes.remove_unwanted(work.host, work.sha256)
    return {"kept_for_volumes": clones} if clones else None


_STEPS: Final[tuple[Step[Bytes], ...]] = (Step("bytes", do=_remove),)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[Bytes]:
    """The workflow on this node; it is retried until it succeeds."""

    async def load(op: Operation) -> Bytes:
        return Bytes(host, str(op.params["sha256"]))

    return Workflow(KIND, load, _STEPS, no_return=0)
