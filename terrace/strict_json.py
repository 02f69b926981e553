"""JSON bodies, read more strictly than Python does: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from typing import Any

import orjson

from terrace.errors import TerraceError

_LONGEST_KEY_SHOWN = 64


class _Repeated(ValueError):
    """A key that stands twice in one object."""


def loads(body: bytes) -> Any:
    """The value that a body holds; raises ``bad_json`` with the reason.

    orjson refuses NaN, invalid UTF-8, lone surrogates and deep nesting; that a key stands twice only the
    standard library's parser can tell (RFC 8259, section 4).
    """
    try:
        value = orjson.loads(body)
        json.loads(body, object_pairs_hook=_refuse_repeated)
    except orjson.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise TerraceError("bad_json", f"The body is not valid JSON: {exc.msg.rstrip('.')} ({where}).") from None
    except _Repeated as exc:
        raise TerraceError("bad_json", f"The body has the key {str(exc)[:_LONGEST_KEY_SHOWN]!r} twice.") from None
    except RecursionError:
        raise TerraceError("bad_json", "The body is nested too deeply.") from None
    except ValueError:
        # a number with thousands of digits, which orjson rounds and Python will not read
        raise TerraceError("bad_json", "The body holds a number that is too long.") from None
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _Repeated(key)
        seen.add(key)
