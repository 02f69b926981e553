"""Names and ids of a request's path."""

from __future__ import annotations

import re

from terrace.errors import NotFound
from terrace.types import find_id

_POSSIBLE = re.compile(r"[a-z0-9-]{1,63}")


def parse_ref(what: str, text: str) -> int | str:
    """An id or a name, fit for a query and for a path; NotFound for what can be neither."""
    number = find_id(text)
    if number is not None:
        return number
    if not _POSSIBLE.fullmatch(text):
        raise NotFound(what, text)
    return text
