"""What a node asks of the pool that its VMs' disks lie in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from internal_api.drivers.protocols.domain import DiskSource, SharedPool


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a stored image is, found by inspecting it before it is used."""

    format: str  # "qcow2" or "raw"
    size_bytes: int  # of the file
    virtual_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Bytes of the pool beneath a storage driver."""

    capacity_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class StorageCapabilities:
    """What a storage can do, so that nobody has to ask which one it is."""

    shared: bool  # every node reaches the same pool, and may run a VM whose disks lie there
    live_snapshots: bool  # ensure_snapshot works while a running domain has the volume open


class Storage(Protocol):
    """Images, volumes and seeds of one pool. Names are chosen by the caller and are safe file names.

    Everything that is made carries the mark of the cloud that made it; nothing else is ever listed,
    changed or removed.
    """

    @property
    def capabilities(self) -> StorageCapabilities: ...

    @property
    def pool_name(self) -> str:
        """Name of the pool, the same on every node that shares it."""
        ...

    def hypervisor_pool(self) -> SharedPool | None:
        """What :meth:`Hypervisor.ensure_pool` needs; None when domains open plain files."""
        ...

    async def connect(self, cloud: UUID) -> None:
        """Make the pool usable for this cloud; removes what an interrupted import of this node left behind.

        A pool that does not answer is no error here: :meth:`ping` tells, and later calls connect by themselves.
        Raises Permanent when the settings, or libraries that are missing, can never work.
        """
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Return when the pool answers; raises Transient otherwise."""
        ...

    async def usage(self) -> PoolUsage: ...

    async def check_room(self) -> None:
        """Return when something can be written to the pool; raises Transient ``pool_full`` otherwise."""
        ...

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        """Store a stream under its own SHA-256, atomically; a second import of the same bytes is a no-op.

        Raises Permanent with code ``checksum_mismatch``, ``image_invalid`` (not what its format says,
        has a backing or data file, absurd size), ``image_too_large``; Transient with ``pool_full``.
        """
        ...

    async def has_image(self, sha256: str) -> bool: ...

    def image_path(self, sha256: str) -> Path | None:
        """Local file of the image when it can be served to another node as it is."""
        ...

    async def remove_image(self, sha256: str) -> None:
        """Remove; raises Permanent ``image_in_use`` while volumes are cloned from it, and says how many."""
        ...

    async def count_children(self, sha256: str) -> int:
        """How many volumes are cloned from an image, those that were retired too: what keeps it from being removed."""
        ...

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        """A writable linked clone of the image, grown to ``size_gib``; Transient ``pool_full``.

        A volume that is there already keeps its content. Permanent ``size_out_of_range`` when the image
        is larger.
        """
        ...

    async def ensure_empty_volume(self, name: str, *, size_gib: int) -> None:
        """A writable, sparse volume that reads as zeros; one that is there already keeps its content."""
        ...

    async def grow_volume(self, name: str, *, size_gib: int) -> None:
        """Grow a volume that no running domain has open; never shrinks. Permanent when it is missing."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Remove a volume with its snapshots; Transient ``volume_in_use`` while somebody has it open."""
        ...

    async def ensure_snapshot(self, volume: str, snapshot: str) -> None:
        """A read-only point in time of the volume; one that is there already stays as it is.

        Without ``live_snapshots`` no running domain may have the volume open. Permanent ``volume_missing``.
        """
        ...

    async def has_snapshot(self, volume: str, snapshot: str) -> bool:
        """Whether there is such a volume with such a snapshot; works while a running domain has it open."""
        ...

    async def remove_snapshot(self, volume: str, snapshot: str) -> None:
        """Remove it; the snapshot or its volume may be absent. The same condition as above."""
        ...

    async def roll_back(self, volume: str, snapshot: str) -> None:
        """Give a volume that nobody has open the content, and the size, that it had at the snapshot.

        Permanent ``snapshot_missing``.
        """
        ...

    async def capture_image(self, volume: str, snapshot: str) -> ImageFacts:
        """Copy a snapshot into an image of its own, that depends on nothing, under its SHA-256.

        Works while a running domain has the volume open. The same errors as :meth:`import_image`.
        """
        ...

    async def ensure_blob(self, name: str, content: bytes) -> None:
        """A small read-only volume with exactly these bytes (the seed)."""
        ...

    async def remove_blob(self, name: str) -> None: ...

    async def list_volumes(self) -> Sequence[str]:
        """Names in the pool that look like volumes or blobs of a Terrace cloud (not images); cheap."""
        ...

    async def is_ours(self, name: str) -> bool:
        """Whether a volume or blob carries this cloud's mark; false when it is absent."""
        ...

    async def retire(self, name: str) -> None:
        """Put a volume or blob of ours away where nobody lists it any more; removed for good days later.

        Refuses with Permanent what does not carry our mark, Transient ``volume_in_use`` what is open.
        """
        ...

    async def purge_retired(self, older_than_s: float) -> int:
        """Remove for good what was retired so long ago; says how many."""
        ...

    def volume_source(self, name: str) -> DiskSource: ...

    def blob_source(self, name: str) -> DiskSource: ...
