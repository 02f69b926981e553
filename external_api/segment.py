"""Names and ids of a request as a segment of a path to the internal tier."""

from __future__ import annotations

import re
from urllib.parse import quote

from terrace.errors import NotFound

_POSSIBLE = re.compile(r"^[a-z0-9-]{1,63}$")


def segment(ref: str) -> str:
    """``ref`` quoted for a path; NotFound for what can be neither a name nor an id."""
    if not _POSSIBLE.match(ref):
        raise NotFound("such thing", ref)
    return quote(ref, safe="")
