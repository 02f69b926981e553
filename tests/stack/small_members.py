"""Members for tests: a few lines of Python each."""

import sys
import time
from collections.abc import Callable
from typing import Any

from terrace.stack import commands
from terrace.stack.member import Member

SLEEP = "import time; time.sleep(600)"


def python(name: str, code: str, **options: Any) -> Member:
    """A member that runs this code; `options` are fields of Member."""
    command = (sys.executable, "-u", "-c", code)
    return Member(name=name, command=command, env=commands.member_environment(), **options)


def eventually(what: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
