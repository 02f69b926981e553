"""Asking a process whether it works."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from terrace.stack.member import Probe

Run = Callable[[tuple[str, ...]], Awaitable[int]]


async def passes(probe: Probe, run: Run) -> bool:
    """Whether the probe succeeds in its time. `run` runs a command and gives its exit status."""
    try:
        async with asyncio.timeout(probe.timeout_s):
            return await _ask(probe, run)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False


async def _ask(probe: Probe, run: Run) -> bool:
    match probe.kind, probe.target:
        case "tcp", str(target):
            host, _, port = target.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            await _close(writer)
            return True
        case "unix", str(target):
            _, writer = await asyncio.open_unix_connection(target)
            await _close(writer)
            return True
        case "http", str(target):
            return await _http_status(target) == 200
        case "command", tuple(target):
            return await run(target) == 0
        case _:
            raise ValueError(f"a probe that can't be asked: {probe}")


async def _http_status(url: str) -> int:
    """Status of a GET. A whole HTTP client would cost the supervisor more memory than all the rest of it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        writer.write(f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        status_line = await reader.readuntil(b"\r\n")
        await reader.read()  # the whole answer, or the server logs a broken connection
    finally:
        await _close(writer)
    return int(status_line.split(b" ")[1])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
