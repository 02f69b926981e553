"""A storage that lives in files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.files import ObjectFolder
from internal_api.drivers.image_header import HEAD_BYTES, check_image
from internal_api.drivers.pool_files import check_name, check_sha256
from internal_api.drivers.protocols import DiskSource, ImageFacts, PoolUsage
from terrace.errors import Permanent, Transient

GIB = 1024**3


class FakeStorage:
    """Implements ``Storage``: images keep their bytes, volumes and blobs only their facts."""

    def __init__(self, world: Path, faults: Faults | None = None, *, capacity_bytes: int = 1024 * GIB) -> None:
        self.faults = faults or Faults(world / "faults")
        self.capacity_bytes = capacity_bytes
        self._image_files = world / "image-files"
        self._images = ObjectFolder(world / "images")
        self._volumes = ObjectFolder(world / "volumes")
        self._blobs = ObjectFolder(world / "blobs")

    async def connect(self) -> None:
        async with self.faults.around("connect"):
            self._image_files.mkdir(parents=True, exist_ok=True)
            for folder in (self._images, self._volumes, self._blobs):
                folder.create()

    async def close(self) -> None:
        """Nothing is held."""

    async def ping(self) -> None:
        async with self.faults.around("ping"):
            pass

    async def usage(self) -> PoolUsage:
        async with self.faults.around("usage"):
            return PoolUsage(self.capacity_bytes, 0)

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
            for name in self._volumes.names():
                volume = self._volumes.find(name)
                if volume is not None and volume["image"] == sha256:
                    raise Permanent("image_in_use", "VMs use disks cloned from this image.")
            self._images.remove(check_sha256(sha256))
            (self._image_files / sha256).unlink(missing_ok=True)

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        async with self.faults.around("ensure_volume"):
            image = self._images.find(check_sha256(image_sha256))
            if image is None:
                raise Transient("service_unavailable", "The image is not on this node yet.")
            volume = self._volumes.find(check_name(name))
            if volume is not None and volume["image"] != image_sha256:
                raise Permanent("operation_failed", "The VM's disk exists with another content.")
            if volume is None and image["virtual_bytes"] > size_gib * GIB:
                raise Permanent("size_out_of_range", "The disk is smaller than its image.")
            if volume is None or volume["size_gib"] < size_gib:
                self._volumes.put(name, {"image": image_sha256, "size_gib": size_gib})

    async def remove_volume(self, name: str) -> None:
        async with self.faults.around("remove_volume"):
            self._volumes.remove(check_name(name))

    async def ensure_blob(self, name: str, content: bytes) -> None:
        async with self.faults.around("ensure_blob"):
            self._blobs.put(check_name(name), {"sha256": hashlib.sha256(content).hexdigest()})

    async def remove_blob(self, name: str) -> None:
        async with self.faults.around("remove_blob"):
            self._blobs.remove(check_name(name))

    async def list_volumes(self) -> Sequence[str]:
        async with self.faults.around("list_volumes"):
            return sorted(self._volumes.names() + self._blobs.names())

    def volume_source(self, name: str) -> DiskSource:
        return DiskSource("file", f"/nonexistent/volumes/{check_name(name)}", "qcow2")

    def blob_source(self, name: str) -> DiskSource:
        return DiskSource("file", f"/nonexistent/blobs/{check_name(name)}", "raw", readonly=True)
