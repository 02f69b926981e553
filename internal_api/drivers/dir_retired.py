"""Files that were put away: ``retired/<seconds since 1970>-<file's name>``, until their time is up. Blocking.

They lie beside the folders that they came from, so that the relative names of their backing files hold.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from internal_api.drivers.pool_files import sync_folder

_NAME = re.compile(r"(\d+)-([0-9a-f-]{36}-(root|seed|data)(\.qcow2)?)")


def put_away(path: Path, folder: Path) -> None:
    """Raises OSError."""
    path.rename(folder / f"{int(time.time())}-{path.name}")
    sync_folder(folder)
    sync_folder(path.parent)


def purge(folder: Path, older_than_s: float) -> int:
    """Remove what lies there for so long; says how many."""
    purged = 0
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None and time.time() - int(match[1]) >= older_than_s:
            path.unlink(missing_ok=True)
            purged += 1
    return purged
