"""Running one of the applications as a process."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from terrace.errors import TerraceError
from terrace.problems import problem
from terrace.settings import CommonSettings


class _Protocol(HttpToolsProtocol):
    """Answers also what is not HTTP (or a method that nobody knows) with a problem document."""

    def send_400_response(self, msg: str) -> None:
        error = TerraceError("bad_request", "The request is not valid HTTP, or of an unknown method.")
        answer = problem(error, str(uuid.uuid4()))
        head = f"content-type: {answer.media_type}\r\ncontent-length: {len(answer.body)}\r\nconnection: close"
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}\r\n\r\n".encode() + bytes(answer.body))
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


def run(app: FastAPI, settings: CommonSettings, on_exit: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT, and return; SystemExit(1) when the application could not start.

    ``on_exit`` is called as soon as the signal comes, before open requests are waited for.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=_Protocol,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,  # above HAProxy's, so that it never writes into a connection being closed
        server_header=False,
    )
    server = _Server(config, on_exit)
    # uvicorn raises the signals that it has caught again once it is done: a clean end exits 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve())
    if not server.started:
        raise SystemExit(1)
