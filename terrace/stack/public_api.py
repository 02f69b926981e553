"""The few calls of the public API that a start needs. (The CLI's client would need the whole environment.)"""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from terrace.stack.errors import StackError

Answer = tuple[int, Any]
# the machine's own addresses are never behind a proxy
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PAUSE_S = 0.1


class PublicApi:
    """Calls with the administrator's token; `path` starts below /api/v1."""

    def __init__(self, url: str, token: str) -> None:
        self._base = f"{url}/api/v1"
        self._token = token

    def get(self, path: str) -> Answer:
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Answer:
        return self._call("POST", path, json.dumps(body or {}).encode(), "application/json")

    def delete(self, path: str) -> Answer:
        return self._call("DELETE", path)

    def upload(self, path: str, file: Path) -> Answer:
        with file.open("rb") as content:
            return self._call("POST", path, content, "application/octet-stream", length=file.stat().st_size)

    def _call(self, method: str, path: str, data: Any = None, kind: str = "", length: int | None = None) -> Answer:
        request = urllib.request.Request(self._base + path, data=data, method=method)  # noqa: S310 - always http
        request.add_header("Authorization", f"Bearer {self._token}")
        if kind:
            request.add_header("Content-Type", kind)
        if length is not None:
            request.add_header("Content-Length", str(length))
        try:
            with OPENER.open(request, timeout=120) as response:
                return response.status, _decode(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _decode(error.read())
        except OSError as error:
            raise StackError(f"{method} {path} of the public API failed: {error}.") from None


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return {"detail": body[:200].decode(errors="replace")}


def expect(answer: Answer, what: str, *statuses: int) -> Any:
    """The answer's body. Raises StackError with the API's own sentence for any other status."""
    status, body = answer
    if status not in statuses:
        detail = body.get("detail", body) if isinstance(body, dict) else body
        raise StackError(f"{what} failed: the public API answered {status}: {detail}")
    return body


def wait_http_ok(url: str, what: str, timeout_s: float = 20.0) -> None:
    """Until a GET answers 200. Raises StackError with the last answer."""
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            with OPENER.open(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read()[:500].decode(errors='replace')}"
        except OSError as error:
            last = str(error)
        time.sleep(PAUSE_S)
    raise StackError(f"{what} is not healthy: {last}")
