"""Small files that are images, or nearly."""

from __future__ import annotations

import hashlib
import struct

MIB = 2**20


def raw(seed: str, size: int = MIB) -> bytes:
    """A raw disk whose bytes differ for each seed."""
    first = hashlib.sha256(seed.encode()).digest()
    return b"\x00" + first + bytes(size - 1 - len(first))


def qcow2(seed: str, virtual_bytes: int = 64 * MIB, *, backing: str = "", version: int = 3) -> bytes:
    """A qcow2 header (https://www.qemu.org/docs/master/interop/qcow2.html), enough for who reads no more."""
    name = backing.encode()
    offset = 112 if name else 0
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, offset, len(name), 16, virtual_bytes, 0, 1, 0, 0, 0, 0, 0
    )
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8)
    head = head[:112].ljust(112, b"\x00") + name
    return head.ljust(MIB // 2, b"\x00") + hashlib.sha256(seed.encode()).digest().ljust(512, b"\x01")


def checksum(content: bytes) -> str:
    """As the API writes it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()
