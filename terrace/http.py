"""JSON responses as Terrace writes them: orjson, UTC times with ``Z``, to the second where people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson
from starlette.responses import Response

_PRECISE = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_TO_THE_SECOND = _PRECISE | orjson.OPT_OMIT_MICROSECONDS


def dumps(value: Any, *, precise: bool = False) -> bytes:
    """JSON of views: datetimes in RFC 3339, in UTC, to the second or, if ``precise``, to the microsecond."""
    return orjson.dumps(value, option=_PRECISE if precise else _TO_THE_SECOND)


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, precise: bool = False
) -> Response:
    """A JSON response."""
    return Response(dumps(value, precise=precise), status, headers, media_type="application/json")


def is_timeout(exc: httpx.HTTPError) -> bool:
    """Whether it was time that ran out; httpx-aiohttp calls broken connections ConnectTimeout, too."""
    if isinstance(exc, httpx.ConnectTimeout):
        return isinstance(exc.__cause__, TimeoutError)
    return isinstance(exc, httpx.TimeoutException)


def wanted_wait_s(prefer: str | None, *, default: float = 30.0, longest: float = 60.0) -> float:
    """Seconds that a client wants to wait for an operation, from its Prefer header (RFC 7240).

    ``respond-async`` is 0, ``wait=N`` is N cut to ``longest``; what can't be read is ignored, as the
    RFC asks.
    """
    if not prefer:
        return default
    wanted = default
    for part in prefer.lower().split(","):
        preference = part.split(";")[0].strip()
        if preference == "respond-async" and "wait" not in prefer.lower():
            return 0.0
        name, _, value = preference.partition("=")
        value = value.strip().strip('"')
        if name.strip() == "wait" and value.isascii() and value.isdigit():
            wanted = min(float(value[:6]), longest)
    return wanted
