"""Reads the API's answers: bodies, links, locations, and problems (RFC 9457) as failures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from terrace.cli.failures import ExitCode, Failure
from terrace.cli.hints import hint_for

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]

_EXIT_OF_STATUS = {
    401: ExitCode.DENIED,
    403: ExitCode.DENIED,
    404: ExitCode.NOT_FOUND,
    429: ExitCode.UNAVAILABLE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}
_LONGEST_RETRY_AFTER_S = 10.0
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer. ``operation`` is the id behind a 202; ``next_url`` the following page's."""

    status: int
    body: Any
    operation: str | None
    next_url: str | None


def read_reply(response: httpx.Response, path: str) -> Reply:
    """The answer to a request for ``path``; raises Failure unless it is a success with JSON or no body."""
    if not response.is_success:
        raise failure_of(response, path)
    body = None
    if response.content:
        body = _json_of(response)
        if body is None:
            raise _foreign(response)
    location = response.headers.get("location", "")
    operation = location.rstrip("/").rpartition("/")[2] if response.status_code == 202 else ""
    link = _NEXT.search(response.headers.get("link", ""))
    return Reply(response.status_code, body, operation or None, link[1] if link else None)


def failure_of(response: httpx.Response, path: str) -> Failure:
    """A refused request as a Failure with its field errors, code, request id and hint."""
    problem = _json_of(response)
    if not isinstance(problem, dict) or "status" not in problem:
        return _foreign(response)
    status, code = response.status_code, str(problem.get("code", ""))
    facts = [(str(error.get("field", "")), str(error.get("message", ""))) for error in problem.get("errors") or []]
    facts.append(("code", f"{code or 'none'} (HTTP {status})"))
    request_id = problem.get("request_id") or response.headers.get("x-request-id")
    if request_id:
        facts.append(("request id", str(request_id)))
    message = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    hint = hint_for(code, status, path)
    return Failure(_EXIT_OF_STATUS.get(status, ExitCode.FAILED), message, facts=facts, hint=hint)


def retry_after_s(response: httpx.Response) -> float:
    """How long the server asks to wait, in seconds, at most 10; 0 when it doesn't say (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value.isdecimal() else _seconds_until(value)
    except (TypeError, ValueError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def _seconds_until(http_date: str) -> float:
    moment = parsedate_to_datetime(http_date)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()


def _json_of(response: httpx.Response) -> Any:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def _foreign(response: httpx.Response) -> Failure:
    url = response.request.url
    where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    facts = [("answer", f"HTTP {response.status_code} {response.headers.get('content-type', 'without a type')}")]
    if response.has_redirect_location:
        facts.append(("redirects to", response.headers["location"]))
    code = _EXIT_OF_STATUS.get(response.status_code, ExitCode.UNAVAILABLE)
    return Failure(
        ExitCode.UNAVAILABLE if code is ExitCode.NOT_FOUND else code,
        f"What answers at {where} does not speak Terrace's API.",
        facts=facts,
        hint="Check TERRACE_URL (or --url): the API's address, without a path.",
    )
