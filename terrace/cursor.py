"""Opaque cursors and Link headers of keyset pagination."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import urlencode

from terrace.errors import TerraceError
from terrace.types import MAX_ID


def encode(last_id: int) -> str:
    """A cursor that stands behind ``last_id``."""
    return base64.urlsafe_b64encode(f"v1:{last_id}".encode()).decode().rstrip("=")


def decode(cursor: str | None, *, start: int) -> int:
    """The id behind which a page begins; raises ``bad_cursor`` for anything we did not give out."""
    if cursor is None:
        return start
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        version, _, number = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except (ValueError, binascii.Error, UnicodeError):
        version, number = "", ""
    if version != "v1" or not (number.isascii() and number.isdigit()) or len(number) > 19 or int(number) > MAX_ID:
        raise TerraceError("bad_cursor", "The cursor is not one that this API gave out. Start without one.")
    return int(number)


def next_link(path: str, query: list[tuple[str, str]], last_id: int) -> str:
    """A Link header (RFC 8288) to the next page, with the same filters."""
    kept = [(name, value) for name, value in query if name != "cursor"]
    return f'<{path}?{urlencode([*kept, ("cursor", encode(last_id))])}>; rel="next"'
