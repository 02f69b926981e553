"""Labels and their selectors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from terrace.errors import TerraceError

KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
MOST: Final = 64


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError with a sentence when a label is malformed or there are more than 64."""
    if len(labels) > MOST:
        raise ValueError(f"at most {MOST} labels are possible")
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            raise ValueError(f"label key {key[:70]!r} must be 1 to 63 letters, digits, '.', '_', '/' or '-'")
        if not VALUE.fullmatch(value):
            raise ValueError(f"value of label {key!r} must be up to 63 letters, digits, '.', '_' or '-'")


def parse_selectors(selectors: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """``key=value`` selectors as a mapping and bare ``key`` selectors as a list; all must hold.

    One text may hold several, separated by commas. Raises ``bad_filter``.
    """
    equal: dict[str, str] = {}
    present: list[str] = []
    for part in (part.strip() for text in selectors for part in text.split(",")):
        key, sign, value = part.partition("=")
        if not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise TerraceError("bad_filter", f"label filter {part[:80]!r} is neither key=value nor key.")
        if not sign:
            present.append(key)
        elif equal.setdefault(key, value) != value:
            raise TerraceError("bad_filter", f"label {key!r} can't have two values at once.")
    return equal, present
