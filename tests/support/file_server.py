"""An HTTP server on loopback from which images are imported."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class FileServer:
    """Files by path. ``/slow/…`` waits for ``go_on`` in the middle, ``/cut/…`` ends there, ``/to/…`` redirects."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server on a free port while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "to":
                self.send_response(302)
                self.send_header("Location", name)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files.get(name)
            if content is None:
                self.send_error(int(kind) if kind.isdigit() else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            if kind == "slow":
                server.go_on.wait(30)
            if kind != "cut":
                self.wfile.write(content[half:])

        def log_message(self, *_: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = FileServer(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        http.shutdown()
        http.server_close()
