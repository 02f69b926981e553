"""RFC 9457 problem documents, and the handlers that turn every failure into one."""

from __future__ import annotations

import socket
from typing import Any

import asyncpg
import httpx
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from terrace import log
from terrace.errors import TITLE_OF, NotFound, TerraceError
from terrace.http import is_timeout

_log = log.get(__name__)

# What a database that is away, starting, stopping, full or failing over makes of a statement.
DATABASE_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that died in the middle of an answer
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)

_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large", 400: "bad_request"}


def problem(error: TerraceError, request_id: str) -> Response:
    """The response for an error."""
    status = error.status
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLE_OF.get(status, "Error"),
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_id,
    }
    if error.fields:
        body["errors"] = [{"field": field, "message": message} for field, message in error.fields]
    body.update({key: value for key, value in error.extra.items() if key not in body})
    headers = {}
    if status in (429, 503, 507) or error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s or 2)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="terrace"'
    if status == 425:
        headers["X-Terrace-Refused"] = str(error.extra.get("reason", "refused"))
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every failure of this application with a problem document."""
    app.add_exception_handler(TerraceError, _on_terrace_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _on_database)


def request_id_of(request: Request) -> str:
    """The id that the edge gave to this request."""
    return str(request.scope.get("terrace.request_id", ""))


async def _on_terrace_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, TerraceError)
    if exc.status >= 500:
        _log.warning("request_failed", code=exc.code, detail=exc.detail, internal=exc.internal)
    return problem(exc, request_id_of(request))


async def _on_database(request: Request, exc: Exception) -> Response:
    _log.warning("database_unavailable", error=repr(exc))
    error = TerraceError("database_unavailable", "The database does not answer. Try again in a moment.")
    return problem(error, request_id_of(request))


async def _on_http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        error: TerraceError = NotFound("route", request.scope["path"])
    elif exc.status_code == 405:
        allowed = _methods_at(request)
        known = ", ".join(allowed)
        error = TerraceError("method_not_allowed", f"{request.method} is not possible here. Possible: {known}.")
        # the framework names the methods of one route only
        exc.headers = {**(exc.headers or {}), "Allow": known}
    else:
        error = TerraceError(_CODE_OF_STATUS.get(exc.status_code, "bad_request"), str(exc.detail))
    response = problem(error, request_id_of(request))
    for name, value in (exc.headers or {}).items():
        response.headers[name] = value
    return response


def _methods_at(request: Request) -> list[str]:
    """Methods that some route takes at the request's path."""
    scopes = {method: {**request.scope, "method": method} for method in ("GET", "POST", "PUT", "PATCH", "DELETE")}
    return [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]


async def _on_invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return problem(from_validation(exc), request_id_of(request))


def from_validation(exc: RequestValidationError) -> TerraceError:
    """What pydantic found wrong with a request, field by field."""
    errors = exc.errors()
    for entry in errors:
        if entry["type"] == "json_invalid":
            why = str(entry.get("ctx", {}).get("error", "")).rstrip(".")
            return TerraceError("bad_json", f"The body is not valid JSON: {why}.")
    fields: list[tuple[str, str]] = []
    for entry in errors[:20]:
        where = [str(part)[:64] for part in entry["loc"][1:]]  # the first says body, query, path or header
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, TerraceError):
            return cause
        message = str(entry["msg"]).removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            message = "is not a known field"
        elif entry["type"] == "missing":
            message = "is required" if where else "a JSON body is required"
        fields.append((".".join(where) or "body", message))
    first = f"{fields[0][0]}: {fields[0][1].rstrip('.')}." if fields else "The request is not valid."
    if errors and errors[0]["loc"][:1] == ("query",) and fields[0][0] == "cursor":
        return TerraceError("bad_cursor", first, fields=tuple(fields))
    return TerraceError("invalid_request", first, fields=tuple(fields))


def from_httpx(exc: httpx.HTTPError) -> TerraceError:
    """What a failed call of the internal tier means to a client."""
    if is_timeout(exc):
        return TerraceError(
            "gateway_timeout",
            "The platform did not answer in time. The change may still happen.",
            internal=repr(exc),
        )
    return TerraceError(
        "service_unavailable", "The platform can't take changes just now. Try again.", internal=repr(exc)
    )
