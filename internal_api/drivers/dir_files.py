"""Single files of a folder pool. Blocking; raises OSError."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from internal_api.drivers.image_header import read_qcow2_header
from internal_api.drivers.pool_files import sync_folder, temporary_path, write_whole
from terrace.errors import Permanent, Transient


def keep(temporary: Path, target: Path) -> None:
    """Give a whole image its name; one of this name has the same bytes."""
    if not target.exists():
        temporary.chmod(0o444)
        temporary.rename(target)
        sync_folder(target.parent)


def ensure_content(path: Path, content: bytes) -> None:
    """Write a blob, unless it has just this content."""
    try:
        same = path.read_bytes() == content
    except OSError:  # absent, or libvirt has given it to QEMU's user
        same = False
    if not same:
        write_whole(path, content)


def size_of_volume(path: Path) -> int:
    """Virtual bytes."""
    header = read_qcow2_header(path)
    if header is None:
        raise Permanent("operation_failed", "The volume is damaged.", internal=path.name)
    return header.virtual_bytes


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Of a file, which lasts through a loss of power from now on."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def virtual_bytes(image: Path) -> int:
    """Of an image; raises Transient when it is absent."""
    try:
        header = read_qcow2_header(image) if image.suffix == ".qcow2" else None
        return header.virtual_bytes if header is not None else image.stat().st_size
    except FileNotFoundError:
        # the image step fetches it from another node
        raise Transient("service_unavailable", "The image is not on this node yet.", internal=image.name) from None


def has_direct_io(folder: Path) -> bool:
    """Whether the file system beneath knows O_DIRECT."""
    with temporary_path(folder) as path:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600))
        except OSError:
            return False
        return True
