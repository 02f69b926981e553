"""Progress lines with the time since the command began: `[ 3.2 s] postgres ready`."""

import os
import sys
import time
from collections.abc import Callable


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """`write` takes whole lines. The shell script that did the first steps says when they began."""

    def __init__(self, write: Callable[[str], None] = _print) -> None:
        self._write = write
        self._started = float(os.environ.get("TERRACE_UP_STARTED") or time.time())

    def say(self, text: str) -> None:
        self._write(f"[{time.time() - self._started:5.1f} s] {text}")

    @classmethod
    def silent(cls) -> "Progress":
        return cls(lambda line: None)
