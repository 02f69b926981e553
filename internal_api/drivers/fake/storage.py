"""A storage that lives in files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.files import ObjectFolder
from internal_api.drivers.image_header import HEAD_BYTES, check_image
from internal_api.drivers.pool_files import (
    check_name,
    check_sha256,
    image_in_use,
    looks_ours,
    not_ours,
    snapshot_missing,
    too_small,
    volume_missing,
)
from internal_api.drivers.protocols import DiskSource, ImageFacts, PoolUsage, SharedPool, StorageCapabilities
from terrace.errors import Permanent, Transient

GIB = 1024**3


class FakeStorage:
    """Implements ``Storage``: images keep their bytes; a volume's content is a text that tests read and write."""

    def __init__(
        self,
        world: Path,
        faults: Faults | None = None,
        *,
        capacity_bytes: int = 1024 * GIB,
        shared: bool = False,
        live_snapshots: bool = True,
    ) -> None:
        self.faults = faults or Faults(world / "faults")
        self.capacity_bytes = capacity_bytes
        self._capabilities = StorageCapabilities(shared=shared, live_snapshots=live_snapshots)
        self._cloud = ""
        self._image_files = world / "image-files"
        self._images = ObjectFolder(world / "images")
        self._volumes = ObjectFolder(world / "volumes")
        self._blobs = ObjectFolder(world / "blobs")
        self._retired = ObjectFolder(world / "retired")

    @property
    def capabilities(self) -> StorageCapabilities:
        return self._capabilities

    @property
    def pool_name(self) -> str:
        return "fake"

    def hypervisor_pool(self) -> SharedPool | None:
        return None

    async def connect(self, cloud: UUID) -> None:
        self._cloud = str(cloud)
        async with self.faults.around("connect"):
            self._image_files.mkdir(parents=True, exist_ok=True)
            for folder in (self._images, self._volumes, self._blobs, self._retired):
                folder.create()

    async def close(self) -> None:
        """Nothing is held."""

    async def ping(self) -> None:
        async with self.faults.around("ping"):
            pass

    async def usage(self) -> PoolUsage:
        async with self.faults.around("usage"):
            return PoolUsage(self.capacity_bytes, 0)

    async def check_room(self) -> None:
        async with self.faults.around("check_room"):
            pass

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        async with self.faults.around("import_image"):
            content = bytearray()
            async for chunk in chunks:
                content += chunk
                if len(content) > max_bytes:
                    raise Permanent("image_too_large", f"The image is larger than {max_bytes} bytes.")
            sha256 = hashlib.sha256(content).hexdigest()
            if checksum is not None and checksum.lower().removeprefix("sha256:") != sha256:
                raise Permanent("checksum_mismatch", f"The image's SHA-256 is {sha256}.")
            found, virtual_bytes = check_image(bytes(content[:HEAD_BYTES]), len(content), format)
            (self._image_files / sha256).write_bytes(content)
            self._images.put(sha256, {"format": found, "virtual_bytes": virtual_bytes})
            return ImageFacts(found, len(content), virtual_bytes, sha256)

    async def has_image(self, sha256: str) -> bool:
        async with self.faults.around("has_image"):
            return self._images.find(check_sha256(sha256)) is not None

    def image_path(self, sha256: str) -> Path | None:
        path = self._image_files / check_sha256(sha256)
        return path if path.exists() else None

    async def remove_image(self, sha256: str) -> None:
        async with self.faults.around("remove_image"):
            children = self._count_children(sha256)
            if children:
                raise image_in_use(children)
            self._images.remove(check_sha256(sha256))
            (self._image_files / sha256).unlink(missing_ok=True)

    async def count_children(self, sha256: str) -> int:
        async with self.faults.around("count_children"):
            return self._count_children(check_sha256(sha256))

    def _count_children(self, sha256: str) -> int:
        folders = (self._volumes, self._retired)
        volumes = [folder.find(name) for folder in folders for name in folder.names()]
        return sum(1 for volume in volumes if volume is not None and volume.get("image") == sha256)

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        async with self.faults.around("ensure_volume"):
            image = self._images.find(check_sha256(image_sha256))
            if image is None:
                raise Transient("service_unavailable", "The image is not on this node yet.")
            volume = self._find(name)
            if volume is not None and volume["image"] != image_sha256:
                raise Permanent("operation_failed", "The VM's disk exists with another content.")
            if volume is None and image["virtual_bytes"] > size_gib * GIB:
                raise too_small()
            self._put_volume(name, volume, image_sha256, size_gib)

    async def ensure_empty_volume(self, name: str, *, size_gib: int) -> None:
        async with self.faults.around("ensure_empty_volume"):
            self._put_volume(name, self._find(name), None, size_gib)

    async def grow_volume(self, name: str, *, size_gib: int) -> None:
        async with self.faults.around("grow_volume"):
            volume = self._existing(name)
            self._put_volume(name, volume, volume["image"], size_gib)

    async def remove_volume(self, name: str) -> None:
        async with self.faults.around("remove_volume"):
            self._remove(self._volumes, name)

    async def ensure_snapshot(self, volume: str, snapshot: str) -> None:
        async with self.faults.around("ensure_snapshot"):
            found = self._existing(volume)
            now = {"size_gib": found["size_gib"], "content": found["content"]}
            found["snapshots"].setdefault(check_name(snapshot), now)
            self._volumes.put(volume, found)

    async def has_snapshot(self, volume: str, snapshot: str) -> bool:
        async with self.faults.around("has_snapshot"):
            found = self._volumes.find(check_name(volume))
            return found is not None and snapshot in found["snapshots"]

    async def remove_snapshot(self, volume: str, snapshot: str) -> None:
        async with self.faults.around("remove_snapshot"):
            found = self._volumes.find(check_name(volume))
            if found is not None and self._is_mine(found) and found["snapshots"].pop(snapshot, None) is not None:
                self._volumes.put(volume, found)

    async def roll_back(self, volume: str, snapshot: str) -> None:
        async with self.faults.around("roll_back"):
            found = self._existing(volume)
            self._volumes.put(volume, found | _snapshot(found, volume, snapshot))

    async def capture_image(self, volume: str, snapshot: str) -> ImageFacts:
        async with self.faults.around("capture_image"):
            then = _snapshot(self._existing(volume), volume, snapshot)
            virtual_bytes = then["size_gib"] * GIB
            content = _qcow2(virtual_bytes, then["content"])
            sha256 = hashlib.sha256(content).hexdigest()
            (self._image_files / sha256).write_bytes(content)
            self._images.put(sha256, {"format": "qcow2", "virtual_bytes": virtual_bytes, "content": then["content"]})
            return ImageFacts("qcow2", len(content), virtual_bytes, sha256)

    async def ensure_blob(self, name: str, content: bytes) -> None:
        async with self.faults.around("ensure_blob"):
            found = self._blobs.find(check_name(name))
            if found is not None and not self._is_mine(found):
                raise not_ours(name)
            self._blobs.put(name, {"sha256": hashlib.sha256(content).hexdigest(), "cloud": self._cloud})

    async def remove_blob(self, name: str) -> None:
        async with self.faults.around("remove_blob"):
            self._remove(self._blobs, name)

    async def list_volumes(self) -> Sequence[str]:
        async with self.faults.around("list_volumes"):
            return sorted(filter(looks_ours, self._volumes.names() + self._blobs.names()))

    async def is_ours(self, name: str) -> bool:
        async with self.faults.around("is_ours"):
            return any(self._is_mine(found) for found in self._called(name))

    async def retire(self, name: str) -> None:
        async with self.faults.around("retire"):
            for found in self._called(name):
                if not self._is_mine(found):
                    raise not_ours(name)
                self._retired.put(name, found | {"at": time.time()})
                self._volumes.remove(name)
                self._blobs.remove(name)

    async def purge_retired(self, older_than_s: float) -> int:
        async with self.faults.around("purge_retired"):
            latest = time.time() - older_than_s
            old = [name for name in self._retired.names() if (self._retired.find(name) or {"at": 0})["at"] <= latest]
            return sum(self._retired.remove(name) for name in old)

    def read_content(self, name: str) -> str:
        """What a guest would read from its disk."""
        return str(self._existing(name)["content"])

    def write_content(self, name: str, content: str) -> None:
        """What a guest would write to its disk."""
        self._volumes.put(name, self._existing(name) | {"content": content})

    def _is_mine(self, found: dict[str, Any]) -> bool:
        return bool(found["cloud"] == self._cloud)

    def _called(self, name: str) -> list[dict[str, Any]]:
        """The volume or blob of this name."""
        found = (self._volumes.find(check_name(name)), self._blobs.find(name))
        return [one for one in found if one is not None]

    def _find(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._volumes.find(check_name(name))
        if found is not None and not self._is_mine(found):
            raise not_ours(name)
        return found

    def _existing(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self._volumes.find(check_name(name))
        if found is None or not self._is_mine(found):
            raise volume_missing(name)
        return found

    def _remove(self, folder: ObjectFolder, name: str) -> None:
        found = folder.find(check_name(name))
        if found is not None and self._is_mine(found):
            folder.remove(name)

    def _put_volume(self, name: str, volume: dict[str, Any] | None, image: str | None, size_gib: int) -> None:
        """Make the volume, or grow it; one of sufficient size stays as it is."""
        if volume is None:
            content = (self._images.find(image) or {}).get("content", "") if image is not None else ""
            volume = {"image": image, "size_gib": 0, "cloud": self._cloud, "snapshots": {}, "content": content}
        if volume["size_gib"] < size_gib:
            volume["size_gib"] = size_gib
            self._volumes.put(name, volume)

    def volume_source(self, name: str) -> DiskSource:
        return DiskSource("file", f"/nonexistent/volumes/{check_name(name)}", "qcow2")

    def blob_source(self, name: str) -> DiskSource:
        return DiskSource("file", f"/nonexistent/blobs/{check_name(name)}", "raw", readonly=True)


def _snapshot(volume: dict[str, Any], name: str, snapshot: str) -> dict[str, Any]:
    found: dict[str, Any] | None = volume["snapshots"].get(snapshot)
    if found is None:
        raise snapshot_missing(f"{name}@{snapshot}")
    return found


def _qcow2(virtual_bytes: int, content: str) -> bytes:
    """As much of a header as other fakes look at, and then the content."""
    return (
        b"QFI\xfb"
        + (3).to_bytes(4, "big")
        + bytes(16)
        + virtual_bytes.to_bytes(8, "big")
        + bytes(80)
        + content.encode()
    )
