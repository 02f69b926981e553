"""Tools as subprocesses: argument lists, no shell, always with a time-out."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from terrace.errors import Transient

_STDERR_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str


async def run(*command: str, timeout_s: float, stdin: bytes | None = None) -> Finished:
    """Run to the end; kills the command and raises Transient when it takes longer, or can't be started."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except OSError as error:
        raise _failed(f"{command[0]}: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        raise _failed(f"{command[0]} took longer than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, stdout, stderr.decode(errors="replace")[-_STDERR_KEPT:])


def _failed(internal: str) -> Transient:
    return Transient("service_unavailable", "A tool of the node does not work.", internal=internal)
