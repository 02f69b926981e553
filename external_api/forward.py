"""The one client of the internal tier: signs, sends, and passes on what comes back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import httpx
import orjson
from fastapi import Request
from starlette.responses import Response

from external_api.settings import ExternalSettings
from terrace import tier_auth
from terrace.errors import TerraceError
from terrace.http import is_timeout, wanted_wait_s
from terrace.problems import from_httpx, request_id_of
from terrace.types import Identity

_PASSED_ON = ("location", "retry-after", "x-terrace-refused")
_MAX_KEY_LENGTH = 255
_PAUSES_S = (0.05, 0.2, 0.5)  # before a request is sent again because its connection broke


class Forwarder:
    """Sends changes to the internal HAProxy."""

    def __init__(self, settings: ExternalSettings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._secret = settings.tier_secret()

    async def send(
        self,
        request: Request,
        who: Identity,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        node: str | None = None,
    ) -> Response:
        """Forward a change; ``node`` says who should get it, if it is up.

        Raises TerraceError when the internal tier can't be reached or does not answer in time.
        """
        prefer = request.headers.get("prefer")
        headers = self._headers(request, who, method, path, tier_auth.hash_body(body))
        headers["content-type"] = "application/json"
        if prefer:
            headers["prefer"] = prefer
        if node is not None:
            headers["x-terrace-node"] = node
        timeout = httpx.Timeout(wanted_wait_s(prefer) + self._settings.internal_margin_s, connect=3.0)
        for pause_s in (*_PAUSES_S, None):
            try:
                answer = await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
                break
            except httpx.HTTPError as exc:
                # the same request with the same key has one effect, however often it arrives
                if pause_s is None or is_timeout(exc):
                    raise from_httpx(exc) from exc
            await asyncio.sleep(pause_s)
        return passed_on(answer)

    async def stream(
        self, request: Request, who: Identity, path: str, query: str, chunks: AsyncIterator[bytes]
    ) -> Response:
        """Forward an upload as it comes."""
        target = f"{path}?{query}" if query else path
        headers = self._headers(request, who, "POST", target, tier_auth.STREAMED)
        headers["content-type"] = "application/octet-stream"
        if length := request.headers.get("content-length"):
            headers["content-length"] = length
        timeout = httpx.Timeout(self._settings.upload_timeout_s, connect=3.0)
        try:
            answer = await self._http.request("POST", target, content=chunks, headers=headers, timeout=timeout)
        except httpx.HTTPError as exc:
            raise from_httpx(exc) from exc
        return passed_on(answer)

    def _headers(self, request: Request, who: Identity, method: str, target: str, body_hash: str) -> dict[str, str]:
        key = idempotency_key(request)
        return {
            **tier_auth.sign(
                self._secret, who, now=time.time(), method=method, target=target, body_hash=body_hash, key=key
            ),
            "idempotency-key": key,
            "x-request-id": request_id_of(request),
        }


def idempotency_key(request: Request) -> str:
    """The request's Idempotency-Key, or a new one; raises ``bad_request`` when it is malformed."""
    key = request.headers.get("idempotency-key")
    if key is None:
        key = request.scope.setdefault("terrace.idempotency_key", f"auto-{uuid.uuid4()}")
    if not 1 <= len(key) <= _MAX_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise TerraceError("bad_request", "Idempotency-Key must be 1 to 255 printable ASCII characters.")
    return key


def is_of_proxy(response: Response) -> bool:
    """Whether HAProxy itself answered, for want of a server; a node that fails a change names its operation."""
    if response.status_code != 503:
        return False
    problem = orjson.loads(response.body)
    return bool(problem["code"] == "service_unavailable" and "operation" not in problem)


def passed_on(answer: httpx.Response) -> Response:
    """An answer of the internal tier as the public one."""
    headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    return Response(
        answer.content,
        answer.status_code,
        headers,
        media_type=answer.headers.get("content-type") if answer.content else None,
    )
