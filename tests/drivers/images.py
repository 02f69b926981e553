"""Small images, made by qemu-img or by hand."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from internal_api.drivers.protocols import ImageFacts, Storage

MIB = 1024**2
GIB = 1024**3
RAW = b"\x11" * 512 + bytes(MIB - 512)


def qcow2(folder: Path, *options: str, size: str = "8M", name: str = "image.qcow2") -> bytes:
    """Bytes of a fresh qcow2 image with some data in it."""
    path = folder / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True)
    if not options:
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", str(path)], check=True)
    return path.read_bytes()


async def stream(content: bytes, chunk_bytes: int = 64 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(content), chunk_bytes):
        yield content[start : start + chunk_bytes]


async def store(storage: Storage, content: bytes, **options: str | None) -> ImageFacts:
    """Import with nothing declared but what ``options`` say."""
    return await storage.import_image(
        stream(content),
        format=options.get("format"),
        checksum=options.get("checksum"),
        max_bytes=64 * MIB,
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
