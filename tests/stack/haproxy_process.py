"""A real HAProxy with one of the project's templates, in front of stand-in servers."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from stand_in_server import StandIn

from terrace.stack.proxies import Server, render


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def haproxy(tier: str, nodes: Sequence[StandIn], directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running HAProxy, which has found the ready nodes to be so."""
    port, metrics = free_port(), free_port()
    text = render(
        f"{tier}.cfg.j2",
        bind=f"127.0.0.1:{port}",
        metrics_bind=f"127.0.0.1:{metrics}",
        nodes=[Server(node.name, "127.0.0.1", node.port, node.agent_port) for node in nodes],
        stats_socket=directory / "stats",
    )
    path = directory / f"{tier}.cfg"
    path.write_text(text)
    subprocess.run(["haproxy", "-c", "-f", path], check=True, capture_output=True)
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-q", "-f", path], stdout=log, stderr=log)
    try:
        # a connection for each request: when a server says nothing to a later request of a connection,
        # HAProxy closes that without an answer of its own, so that the client sends it again
        once = httpx.Limits(max_keepalive_connections=0)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30, limits=once) as client:
            await _until(lambda: _listens(port))
            if any(node.ready for node in nodes):
                await _until(lambda: _answers(client))
            # agents are asked once a second
            await asyncio.sleep(1.1 if tier == "internal" else 0)
            yield client
    finally:
        process.kill()
        process.wait()


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await what():
            await asyncio.sleep(0.02)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _answers(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200
