"""Receiving an image's bytes into a file, and telling what they are before anybody trusts them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from internal_api.drivers import qemu_img
from internal_api.drivers.executor import BlockingExecutor
from internal_api.drivers.image_header import HEAD_BYTES, check_image
from internal_api.drivers.protocols import ImageFacts
from terrace.errors import Permanent

WRITE_TIMEOUT_S = 60.0
# what is handed to a thread at once: hops cost more than bytes
WRITE_BYTES = 4 * 1024**2


async def receive(
    executor: BlockingExecutor,
    chunks: AsyncIterator[bytes],
    path: Path,
    *,
    format: str | None,
    checksum: str | None,
    max_bytes: int,
) -> ImageFacts:
    """Write the stream durably; raises OSError, and Permanent as ``Storage.import_image`` says."""
    size, sha256, head = await _write_all(executor, chunks, path, max_bytes)
    if checksum is not None and checksum.lower().removeprefix("sha256:") != sha256:
        raise Permanent("checksum_mismatch", f"The image's SHA-256 is {sha256}, which is not the one given.")
    found, virtual_bytes = check_image(head, size, format)
    if found == "qcow2":
        await qemu_img.check(path)
    return ImageFacts(format=found, size_bytes=size, virtual_bytes=virtual_bytes, sha256=sha256)


async def _write_all(
    executor: BlockingExecutor, chunks: AsyncIterator[bytes], path: Path, max_bytes: int
) -> tuple[int, str, bytes]:
    """The stream's size, SHA-256 and first bytes."""
    digest, size, head, waiting = hashlib.sha256(), 0, b"", bytearray()
    with path.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise Permanent("image_too_large", f"The image is larger than {max_bytes} bytes.")
            waiting += chunk
            if len(head) < HEAD_BYTES:
                head += chunk[: HEAD_BYTES - len(head)]
            if len(waiting) >= WRITE_BYTES:
                await executor.run(_write, file, bytes(waiting), digest, timeout_s=WRITE_TIMEOUT_S)
                waiting.clear()
        await executor.run(_write, file, bytes(waiting), digest, timeout_s=WRITE_TIMEOUT_S)
        await executor.run(_flush, file, timeout_s=WRITE_TIMEOUT_S)
    return size, digest.hexdigest(), head


def _write(file: BinaryIO, content: bytes, digest: hashlib._Hash) -> None:
    file.write(content)
    digest.update(content)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
