"""What an image says it is, read from its first bytes and before any tool opens it.

An image comes from anybody. A qcow2 header can name other files (a backing file, a data file) that QEMU
and ``qemu-img`` would then open on this host, so such images are refused here.
qcow2: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from terrace.errors import Permanent

SECTOR_BYTES = 512
MAX_VIRTUAL_BYTES = 64 * 1024**4
HEAD_BYTES = 4096

_QCOW2_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_SNAPSHOTS = struct.Struct(">IQ")
_SNAPSHOT = struct.Struct(">12xHH20xI")  # the fixed part of an entry of the snapshot table, less what nobody needs
_INCOMPATIBLE_CORRUPT = 1 << 1
_INCOMPATIBLE_DATA_FILE = 1 << 2
# Formats and wrappings that would otherwise pass for a raw disk.
_OTHER_MAGICS = (
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VPC"),
    (b"QED\0", "QED"),
    (b"<<< ", "VDI"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)


def image_invalid(detail: str) -> Permanent:
    """The one error of a refused image; ``detail`` is public."""
    return Permanent("image_invalid", detail)


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The part of a qcow2 header that matters here."""

    virtual_bytes: int
    backing_file: str | None
    encrypted: bool
    corrupt: bool
    has_data_file: bool


def parse_qcow2_header(head: bytes) -> Qcow2Header | None:
    """None when ``head`` (the first HEAD_BYTES of a file) is not a qcow2 header."""
    if len(head) < _HEADER.size or not head.startswith(_QCOW2_MAGIC):
        return None
    _, version, backing_offset, backing_bytes, _, virtual_bytes, crypt, *_ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        return None
    features = int.from_bytes(head[72:80], "big") if version == 3 else 0
    backing: str | None = None
    if backing_offset:
        # One beyond our bytes is no image of ours; it still counts as having a backing file.
        name = head[backing_offset : backing_offset + backing_bytes]
        backing = name.decode(errors="replace")
    return Qcow2Header(
        virtual_bytes=virtual_bytes,
        backing_file=backing,
        encrypted=crypt != 0,
        corrupt=bool(features & _INCOMPATIBLE_CORRUPT),
        has_data_file=bool(features & _INCOMPATIBLE_DATA_FILE),
    )


def read_qcow2_snapshots(path: Path) -> dict[str, int]:
    """Virtual bytes at each internal snapshot of a qcow2 file of ours, by name; raises OSError."""
    found: dict[str, int] = {}
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        count, offset = _SNAPSHOTS.unpack_from(head, 60)
        for _ in range(count):
            file.seek(offset)
            id_bytes, name_bytes, extra_bytes = _SNAPSHOT.unpack(file.read(_SNAPSHOT.size))
            extra = file.read(extra_bytes)
            name = file.read(id_bytes + name_bytes)[id_bytes:].decode()
            found[name] = int.from_bytes(extra[8:16], "big")
            offset += -(-(_SNAPSHOT.size + extra_bytes + id_bytes + name_bytes) // 8) * 8
    return found


def read_qcow2_header(path: Path) -> Qcow2Header | None:
    """Header of a file; raises OSError."""
    with path.open("rb") as file:
        return parse_qcow2_header(file.read(HEAD_BYTES))


def check_image(head: bytes, size_bytes: int, declared: str | None) -> tuple[str, int]:
    """Format and virtual size of an image; raises Permanent ``image_invalid`` with the reason."""
    if declared not in (None, "qcow2", "raw"):
        raise image_invalid("An image's format is qcow2 or raw.")
    if size_bytes == 0:
        raise image_invalid("The image is empty.")
    if head.startswith(_QCOW2_MAGIC):
        if declared == "raw":
            raise image_invalid("The image is declared raw but is a qcow2 image.")
        return "qcow2", _check_qcow2(head)
    if declared == "qcow2":
        raise image_invalid("The image is declared qcow2 but does not begin like one.")
    return "raw", _check_raw(head, size_bytes)


def _check_qcow2(head: bytes) -> int:
    header = parse_qcow2_header(head)
    if header is None:
        raise image_invalid("The qcow2 header is cut off or of an unknown version.")
    if header.backing_file is not None:
        raise image_invalid("The image needs a backing file. Flatten it first: qemu-img convert -O qcow2.")
    if header.has_data_file:
        raise image_invalid("The image keeps its data in another file. Convert it: qemu-img convert -O qcow2.")
    if header.encrypted:
        raise image_invalid("The image is encrypted.")
    if header.corrupt:
        raise image_invalid("The image is marked corrupt.")
    return _check_virtual_size(header.virtual_bytes)


def _check_raw(head: bytes, size_bytes: int) -> int:
    for magic, name in _OTHER_MAGICS:
        if head.startswith(magic):
            raise image_invalid(f"The file is {name}; an image is an uncompressed qcow2 or raw disk.")
    if size_bytes % SECTOR_BYTES:
        raise image_invalid("The file is neither a qcow2 image nor a raw disk of whole 512-byte sectors.")
    return _check_virtual_size(size_bytes)


def _check_virtual_size(virtual_bytes: int) -> int:
    if virtual_bytes == 0:
        raise image_invalid("The image holds a disk of no size.")
    if virtual_bytes > MAX_VIRTUAL_BYTES:
        raise image_invalid("The image's disk is larger than 64 TiB.")
    return virtual_bytes
