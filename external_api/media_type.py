"""What a request says its body is."""

from __future__ import annotations

from fastapi import Request

# What `curl -d` says of any body when it isn't told otherwise; no route takes a form.
_CURLS_DEFAULT = "application/x-www-form-urlencoded"


def media_type(request: Request) -> str:
    """The media type of the body, without parameters; empty when nothing is said."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def may_be_json(kind: str) -> bool:
    """Whether a body of this type is read as JSON; one without a type is."""
    return kind in ("", "application/json", _CURLS_DEFAULT) or (
        kind.startswith("application/") and kind.endswith("+json")
    )
