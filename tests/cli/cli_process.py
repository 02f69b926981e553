"""Runs the command as a process of its own, with or without a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typer.testing import Result

COMMAND = [sys.executable, "-m", "terrace.cli.main"]
Run = Callable[..., Result]


@dataclass
class OnTerminal:
    exit_code: int
    output: str


def run_process(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def run_on_terminal(
    env: Mapping[str, str], *arguments: str, answer_after: tuple[str, bytes] | None = None
) -> OnTerminal:
    """Runs the command on a pseudo-terminal, and presses keys once a text was shown."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job of a script is started with it ignored
        os.execvpe(COMMAND[0], [*COMMAND, *arguments], dict(env))
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the last writer of a terminal is gone
            break
        shown += part
        if answer_after and answer_after[0].encode() in shown:
            os.write(terminal, answer_after[1])
            answer_after = None
        if not part:
            break
    else:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(terminal)
    return OnTerminal(os.waitstatus_to_exitcode(status), shown.decode())
