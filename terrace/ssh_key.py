"""SSH public keys: parsing, refusing what sshd would not take, fingerprints (RFC 4253, RFC 4716)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

from terrace.errors import TerraceError

_TYPES: Final = frozenset({
    "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip
_MIN_RSA_BITS: Final = 2048
_MAX_LENGTH: Final = 16_384
_POSSIBLE_NAME: Final = re.compile(r"[a-z0-9-]{1,63}")
_POINT_BYTES: Final = {b"nistp256": 65, b"nistp384": 97, b"nistp521": 133}  # uncompressed (RFC 5656)
_COMMENT: Final = re.compile(r"[^\x00-\x1f\x7f]{0,255}")


def looks_like_key(text: str) -> bool:
    """Whether the text is meant as a public key rather than as the name of one (``ssh-laptop`` is a name)."""
    if _POSSIBLE_NAME.fullmatch(text):
        return False
    return len(text.split(None, 1)) > 1 or text.startswith(("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"))


def parse(text: str) -> str:
    """The key as one line ``type base64 [comment]``; raises ``invalid_ssh_key`` with a reason."""
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        raise _invalid("it is longer than 16 KiB")
    if "\n" in text or "\r" in text:
        raise _invalid("it must be one line")
    if "PRIVATE KEY" in text:
        raise _invalid("this is a private key; give the .pub file, and consider the private one exposed")
    parts = text.split(None, 2)
    if len(parts) < 2:
        raise _invalid("it must read: type, base64 data, comment")
    kind, data = parts[0], parts[1]
    comment = parts[2] if len(parts) > 2 else ""
    if kind not in _TYPES:
        raise _invalid(f"{kind[:40]!r} is not a known key type, such as ssh-ed25519")
    if not _COMMENT.fullmatch(comment):
        raise _invalid("its comment has control characters or is longer than 255 characters")
    _check_blob(kind, _decode(data))
    return f"{kind} {data} {comment}".rstrip()


def fingerprint(public_key: str) -> str:
    """``SHA256:…`` as ssh-keygen -l prints it."""
    digest = hashlib.sha256(_decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("its data is not base64") from None


def _check_blob(kind: str, blob: bytes) -> None:
    fields: list[bytes] = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        if at + 4 + size > len(blob):
            raise _invalid("its data is cut off")
        fields.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    if not fields or fields[0] != kind.encode():
        raise _invalid("its data is of another type than its first word says")
    expected = {"ssh-ed25519": 2, "ssh-rsa": 3, "sk-ssh-ed25519@openssh.com": 3}.get(
        kind, 4 if kind.startswith("sk-") else 3
    )
    if len(fields) != expected:
        raise _invalid("its data has the wrong number of fields")
    if kind == "ssh-ed25519" and len(fields[1]) != 32:
        raise _invalid("an ed25519 key has 32 bytes")
    if "ecdsa" in kind:
        curve, point = fields[1], fields[2]
        if curve not in kind.encode() or len(point) != _POINT_BYTES.get(curve) or point[0] != 4:
            raise _invalid("its data is not a point on the curve of its type")
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < _MIN_RSA_BITS:
        raise _invalid(f"an RSA key needs at least {_MIN_RSA_BITS} bits")


def _invalid(why: str) -> TerraceError:
    return TerraceError("invalid_ssh_key", f"This is not a usable SSH public key: {why}.")
