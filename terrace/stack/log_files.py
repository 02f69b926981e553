"""The members' log files: kept small, and their last lines."""

import asyncio
import os
import shutil
from pathlib import Path

LARGEST_LOG_BYTES = 10 * 1024 * 1024


def rotate(path: Path, largest_bytes: int = LARGEST_LOG_BYTES) -> None:
    """Moves a log's content to NAME.log.1 when it is too large.

    Copied and emptied, not renamed: the member holds the file open for appending and never needs to know.
    """
    if path.stat().st_size > largest_bytes:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


async def keep_small(directory: Path, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(_rotate_all, directory)


def _rotate_all(directory: Path) -> None:
    for path in directory.glob("*.log"):
        rotate(path)


def sizes(directory: Path) -> dict[str, int]:
    """How many bytes each log holds now, by member."""
    return {path.stem: path.stat().st_size for path in directory.glob("*.log")}


def tail(path: Path, lines: int = 20, after: int = 0) -> str:
    """The last lines of a log, without reading all of it, and only what follows `after` bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(after if after <= size else 0, size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
