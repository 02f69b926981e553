"""Golden files: what a pure function printed when somebody last looked at it."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare; with UPDATE_GOLDEN=1 in the environment, write instead."""
    path = _FOLDER / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert path.read_text() == text
