"""The headers that every change takes, and its answer when it is not done in time."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel

Prefer = Annotated[
    str | None,
    Header(description="`wait=N` (seconds, at most 60; default 30) or `respond-async` (RFC 7240)"),
]
IdempotencyKey = Annotated[str | None, Header(description="Requests with the same key and body have one effect")]


def accepted(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The 202 answer for OpenAPI."""
    return {202: {"model": model, "description": "Not done within the wait; `Location` is the operation"}}
