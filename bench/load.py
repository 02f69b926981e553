"""A bounded load: so many clients, so many requests, so much time at most."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.client import Connection


@dataclass(slots=True)
class Load:
    """How a load went. ``client_cpu_s`` is what producing it cost this process."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def count(self) -> int:
        """How many requests were answered."""
        return len(self.latencies_s)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.count / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The latency in ms that this share of the answers did not exceed."""
        ordered = sorted(self.latencies_s)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def expect(self, *statuses: int) -> Load:
        """This load, if it was answered with nothing else; raises RuntimeError."""
        others = {status: number for status, number in self.statuses.items() if status not in statuses}
        if others or not self.count:
            raise RuntimeError(f"unexpected answers, status: number {others or 'none at all'}")
        return self


class Endpoint:
    """Where the public API is, and requests for it as bytes."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host = host
        self.port = port
        self._common = f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """A whole HTTP/1.1 request."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}"
        if body is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + (body or b"")


async def run(
    endpoint: Endpoint,
    requests: Iterator[bytes],
    *,
    clients: int,
    most_s: float,
    on_body: Callable[[bytes], None] | None = None,
) -> Load:
    """Let ``clients`` share the requests, until there are no more or ``most_s`` seconds are over."""
    load = Load()
    connections = [await Connection.open(endpoint.host, endpoint.port) for _ in range(clients)]
    began, cpu = time.perf_counter(), time.process_time()

    async def one(connection: Connection) -> None:
        for request in requests:
            sent = time.perf_counter()
            if sent - began > most_s:
                return
            answer = await connection.send(request)
            load.latencies_s.append(time.perf_counter() - sent)
            load.statuses[answer.status] += 1
            if on_body is not None:
                on_body(answer.body)

    try:
        await asyncio.gather(*(one(connection) for connection in connections))
    finally:
        for connection in connections:
            connection.close()
    load.seconds = time.perf_counter() - began
    load.client_cpu_s = time.process_time() - cpu
    return load
