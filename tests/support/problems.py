"""What every error answer must be."""

from __future__ import annotations

from typing import Any

import httpx

_KNOWN = {"type", "title", "status", "code", "detail", "request_id"}


def assert_problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document (RFC 9457) of an answer, after a look at its form."""
    assert response.status_code == status, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem.keys() >= _KNOWN, problem
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"][0].isascii() and problem["detail"].rstrip().endswith((".", "…")), problem["detail"]
    assert len(problem["detail"]) > 10, "a sentence that helps"
    if code is not None:
        assert problem["code"] == code, problem
    if status in (429, 503, 504, 507):
        assert int(response.headers["retry-after"]) > 0
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")
    return problem
