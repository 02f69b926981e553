"""The one client of the public API: authentication, retries, pages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from terrace.cli.failures import ExitCode, Failure, usage
from terrace.cli.reply import Json, Reply, failure_of, read_reply, retry_after_s

if TYPE_CHECKING:
    import httpx

_API = "/api/v1"
# Refused before anything happened, or safe to repeat under one Idempotency-Key.
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_CONNECT_TIMEOUT_S = 5.0
# above the longest wait of a request (60 s) and the load balancer's own limit (75 s)
_READ_TIMEOUT_S = 80.0
# an upload is answered only after the image was checked and stored
_UPLOAD_TIMEOUT_S = 900.0
_PAGE_SIZE = 100
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def path_of(*parts: str | int) -> str:
    """A path below /api/v1, each part quoted; raises Failure on a part that could mean another path."""
    texts = [str(part) for part in parts]
    if any(not text.strip(". ") for text in texts):
        raise usage("A name or id must not be empty.")
    return "/" + "/".join(quote(text, safe="") for text in texts)


class Api:
    """Blocking requests to one installation; every failure leaves as a Failure.

    Each change carries its own random Idempotency-Key, so that repeating it after a lost answer can't do it
    twice. ``tell`` receives a sentence whenever a request is tried again.
    """

    def __init__(
        self,
        url: str,
        token: str,
        tell: Callable[[str], None],
        *,
        timeout_s: float = _READ_TIMEOUT_S,
        retries: bool = True,
    ) -> None:
        import httpx  # half of the start-up time, and not needed for --help

        self.url = url
        self._tell = tell
        self._pauses_s = _PAUSES_S if retries else ()
        # proxies are for the outside; a machine's own API is never behind one
        outside = urlsplit(url).hostname not in _LOOPBACK
        self._http = httpx.Client(
            base_url=url + _API,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
            trust_env=outside,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON at ``path``."""
        return self._send("GET", path).body

    def pages(self, path: str, params: Sequence[tuple[str, str]], limit: int | None) -> Iterator[Json]:
        """The items of a collection, page after page, at most ``limit`` of them (None: all)."""
        wanted = [*params, ("limit", str(_PAGE_SIZE if limit is None else min(limit, _PAGE_SIZE)))]
        reply = self._send("GET", path, params=wanted)
        left = limit
        while True:
            items = reply.body if left is None else reply.body[:left]
            yield from items
            left = None if left is None else left - len(items)
            if reply.next_url is None or left == 0:
                return
            # only the query is taken: a link must not carry the token to another host
            query = urlsplit(reply.next_url).query
            reply = self._send("GET", f"{path}?{query}")

    def change(self, method: str, path: str, body: Json | None = None) -> Reply:
        """Sends a change without waiting for its operation (RFC 7240, respond-async)."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Prefer": "respond-async"}
        if body is None:
            return self._send(method, path, headers=headers)
        return self._send(method, path, headers=headers, json=body)

    def upload(self, path: str, params: Mapping[str, str], content: Iterator[bytes], size_bytes: int) -> Reply:
        """Streams a file. Not repeated: what was read is gone, and half an upload is no image."""
        import httpx

        headers = {
            "Idempotency-Key": str(uuid.uuid4()),
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_bytes),
        }
        timeout = httpx.Timeout(_UPLOAD_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        try:
            response = self._http.post(path, params=dict(params), content=content, headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        except KeyboardInterrupt:
            raise Failure(ExitCode.INTERRUPTED, "The upload was interrupted: there is no new image.") from None
        return read_reply(response, path)

    def _send(self, method: str, path: str, **request: Any) -> Reply:
        try:
            return self._attempts(method, path, **request)
        except KeyboardInterrupt:
            raise _interrupted(method) from None

    def _attempts(self, method: str, path: str, **request: Any) -> Reply:
        import httpx

        for pause_s in (*self._pauses_s, None):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                failure, asked_s = self._unreachable(error), 0.0
                if _is_about_certificates(error):
                    break
            else:
                if response.status_code not in _RETRY_STATUSES:
                    return read_reply(response, path)
                failure, asked_s = failure_of(response, path), retry_after_s(response)
            if pause_s is not None:
                wait_s = max(pause_s, asked_s)
                self._tell(f"{failure.message} Trying again in {wait_s:g} s.")
                time.sleep(wait_s)
        raise failure

    def _unreachable(self, error: httpx.TransportError) -> Failure:
        reason = str(error) or type(error).__name__
        hint = "Check TERRACE_URL (or --url), and that the platform runs: `scripts/stack status` on its machine."
        if _is_about_certificates(error):
            hint = "If the API has a certificate of your own authority, name its file in SSL_CERT_FILE."
        return Failure(
            ExitCode.UNAVAILABLE,
            f"Cannot reach the API at {self.url}.",
            facts=[("reason", reason)],
            hint=hint,
        )


def _is_about_certificates(error: Exception) -> bool:
    return "CERTIFICATE" in str(error)


def _interrupted(method: str) -> Failure:
    if method == "GET":
        return Failure(ExitCode.INTERRUPTED, "Interrupted.")
    return Failure(
        ExitCode.INTERRUPTED,
        "Interrupted while the request was on its way: it may have been accepted.",
        hint="`terrace op list` shows the newest operations.",
    )
