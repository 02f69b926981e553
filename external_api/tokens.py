"""Who a bearer token stands for, remembered for seconds and forgotten as soon as any token changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from terrace import db
from terrace.errors import TerraceError
from terrace.store import tokens
from terrace.types import Identity

_MOST = 10_000
_MAX_TOKEN_LENGTH = 256


class TokenCache:
    """Tokens by their SHA-256. Only known tokens are remembered, so that guesses can't fill it."""

    def __init__(self, pool: db.Pool, keep_s: float) -> None:
        self._pool = pool
        self._keep_s = keep_s
        self._known: dict[bytes, tuple[Identity, float]] = {}
        self.trust: Callable[[], bool] = lambda: False  # whether changes of tokens would be heard of

    def on_notify(self, _channel: str, _payload: str | None) -> None:
        """A token was changed or revoked, or such news may have been missed."""
        self._known.clear()

    async def identify(self, authorization: str | None) -> Identity:
        """The identity behind an Authorization header (RFC 6750); raises ``unauthenticated``."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise TerraceError("unauthenticated", "Send a token as `Authorization: Bearer …`.")
        if len(token) > _MAX_TOKEN_LENGTH:
            raise _unknown()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > time.monotonic() and self.trust():
            return known[0]
        async with self._pool.acquire() as conn:
            found = await tokens.find_identity(conn, digest)
        if found is None:
            self._known.pop(digest, None)
            raise _unknown()
        identity, expires_at = found
        keep = self._keep_s
        if expires_at is not None:
            keep = min(keep, (expires_at - datetime.now(UTC)).total_seconds())
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[digest] = (identity, time.monotonic() + keep)
        return identity


def _unknown() -> TerraceError:
    return TerraceError("unauthenticated", "This token is not known, or no longer valid.")
