"""The query parameters and headers of every list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from terrace import cursor
from terrace.http import json_response

Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries in one page")]
Cursor = Annotated[
    str | None,
    Query(max_length=200, description="Where to go on: taken from the Link header of the page before"),
]


def page(request: Request, items: Sequence[dict[str, Any]], limit: int, *, precise: bool = False) -> Response:
    """A JSON array; with ``Link: rel="next"`` when it was filled to its limit by one more than asked."""
    headers = {}
    if len(items) > limit:
        items = items[:limit]
        headers["Link"] = cursor.next_link(request.scope["path"], request.query_params.multi_items(), items[-1]["id"])
    return json_response(items, headers=headers, precise=precise)
