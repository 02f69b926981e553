"""Error answers as OpenAPI shows them."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from terrace.errors import TITLE_OF


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["cpu"])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """RFC 9457 problem document; ``code`` is stable and meant for programs."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    code: str = Field(examples=["name_taken"])
    detail: str = Field(examples=["A VM named test-1 exists in this project."])
    request_id: str
    errors: list[FieldProblem] | None = None


_ALWAYS: Final = (401, 500, 502, 503, 504)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses for OpenAPI: the given statuses, and those that every route may answer."""
    return {
        status: {
            "description": TITLE_OF[status],
            "content": {"application/problem+json": {"schema": _SCHEMA}},
        }
        for status in sorted({*statuses, *_ALWAYS})
    }


_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
