"""How the internal tier knows the external one: identity in a signed header.

The signature is an HMAC-SHA256 with the tiers' shared secret over method, path with query, SHA-256 of
the body, Idempotency-Key and the identity with its time. HAProxy's redispatch of the same request
carries the same signature and is the same request; anything else does not verify.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import orjson

from terrace.types import Identity, ProjectId, TokenId

IDENTITY_HEADER: Final = "x-terrace-identity"
SIGNATURE_HEADER: Final = "x-terrace-signature"
STREAMED: Final = "STREAMED"  # in place of the body's hash for uploads, which are checked by checksum
_TOLERANCE_S = 60.0  # clocks of the two tiers may differ by this much


def sign(
    secret: bytes, identity: Identity, *, now: float, method: str, target: str, body_hash: str, key: str
) -> dict[str, str]:
    """Headers that prove a request to the internal tier; ``target`` is path and query as sent."""
    claims = orjson.dumps([identity.project_id, identity.token_id, identity.role, round(now)]).decode()
    return {
        IDENTITY_HEADER: claims,
        SIGNATURE_HEADER: _mac(secret, claims, method, target, body_hash, key),
    }


def verify(
    secret: bytes,
    claims: str,
    signature: str,
    *,
    now: float,
    method: str,
    target: str,
    body_hash: str,
    key: str,
) -> Identity | None:
    """The identity of a request that the external tier has signed within the last minute, or None."""
    expected = _mac(secret, claims, method, target, body_hash, key)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return None
    project_id, token_id, role, signed_at = orjson.loads(claims)
    if abs(now - signed_at) > _TOLERANCE_S:
        return None
    return Identity(ProjectId(project_id), TokenId(token_id), role)


def hash_body(body: bytes) -> str:
    """Hexadecimal SHA-256 of a body."""
    return hashlib.sha256(body).hexdigest()


def _mac(secret: bytes, claims: str, method: str, target: str, body_hash: str, key: str) -> str:
    text = "\n".join((method, target, body_hash, key, claims))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
