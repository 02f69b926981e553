"""A small HTTP server in place of an API node, with an agent as HAProxy asks it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """`hang_up`: closes the connection without an answer, as a process that dies does."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


class StandIn:
    """Answers every request with `reply`; `requests` are those that were not health checks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[Request] = []
        self.reply: Callable[[Request], Reply] = lambda request: Reply()
        self.ready = True
        self.agent_word = "up 100%"
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.agent_port = 0

    async def start(self) -> None:
        """On ports of its own choice the first time, on the same ones when started again."""
        http = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        agent = await asyncio.start_server(self._tell, "127.0.0.1", self.agent_port, reuse_address=True)
        self._servers = [http, agent]
        self.port, self.agent_port = (server.sockets[0].getsockname()[1] for server in self._servers)

    async def stop(self) -> None:
        """Ends like a killed process: connections are cut."""
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._servers = []
        await asyncio.sleep(0)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.agent_word}\n".encode())
        await writer.drain()
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while request := await self._read(reader):
                await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # cut by the other side, or by stop()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(method, path, headers, body)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/readyz":
            reply = Reply(200 if self.ready else 503)
        else:
            self.requests.append(request)
            reply = self.reply(request)
        if reply.hang_up:
            raise ConnectionResetError
        headers = {"Content-Length": str(len(self.name)), "Server-Name": self.name, **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n{self.name}".encode())
        await writer.drain()
