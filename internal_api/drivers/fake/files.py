"""Objects of the fake drivers' world: one small file each, whole or absent, so that it survives SIGKILL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson


class ObjectFolder:
    """JSON objects by name. Not durable through a loss of power, which no fake has to survive."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._serial = 0

    def create(self) -> None:
        """Make the folder."""
        Path(self._folder).mkdir(parents=True, exist_ok=True)

    def put(self, name: str, value: Any) -> None:
        self._serial += 1
        temporary = f"{self._folder}/.{os.getpid()}-{self._serial}"
        with open(temporary, "wb") as file:  # noqa: PTH123 - a fake must cost next to nothing
            file.write(orjson.dumps(value))
        os.replace(temporary, f"{self._folder}/{name}")  # noqa: PTH105

    def find(self, name: str) -> Any | None:
        try:
            with open(f"{self._folder}/{name}", "rb") as file:  # noqa: PTH123
                return orjson.loads(file.read())
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> bool:
        """Whether it was there."""
        try:
            os.unlink(f"{self._folder}/{name}")  # noqa: PTH108
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._folder) if not name.startswith("."))  # noqa: PTH208
