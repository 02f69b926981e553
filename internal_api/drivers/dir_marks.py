"""Whose the files of a folder pool are: ``marks/<name>`` holds the UUID of the cloud that made volume or blob ``name``.

A mark is written before its file appears and removed after it is gone. A file without one is somebody else's.
Blocking; raises OSError.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from internal_api.drivers.pool_files import sync_folder, write_whole


class Marks:
    """The marks of one pool, as one cloud sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cloud = ""

    def open(self, cloud: UUID, found: Iterable[str]) -> None:
        """Begin; a pool that has no marks yet was used by an older release, which owned all that was ``found``."""
        self._cloud = str(cloud)
        if self._folder.exists():
            return
        # all of them or none: what has no mark once there are marks is somebody else's
        adopted = self._folder.with_name(f"{self._folder.name}.new")
        adopted.mkdir(exist_ok=True)
        for name in found:
            write_whole(adopted / name, self._cloud.encode())
        adopted.rename(self._folder)
        sync_folder(self._folder.parent)

    def is_ours(self, name: str) -> bool:
        """Whether this cloud made it."""
        try:
            return (self._folder / name).read_text() == self._cloud
        except FileNotFoundError:
            return False

    def set(self, name: str) -> None:
        """It is ours from now on."""
        if not self.is_ours(name):
            write_whole(self._folder / name, self._cloud.encode())

    def remove(self, name: str) -> None:
        """It is gone."""
        (self._folder / name).unlink(missing_ok=True)
