"""JSON that YAML 1.1 parsers read as the same values: cloud-init takes YAML, small guests take JSON."""

from __future__ import annotations

import json
import re
from typing import assert_never

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# Not allowed raw in YAML 1.1 (5.1 Character Set), or line breaks that it folds: NEL, LS, PS.
# What lies beyond the BMP stays raw: YAML does not join JSON's surrogate pairs.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def json_yaml(value: Json) -> str:
    """One line. Raises ValueError for what one of the two formats can't say: NaN, half surrogate pairs."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _string(value)
        case list():
            return "[" + ", ".join(json_yaml(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{_string(key)}: {json_yaml(item)}" for key, item in value.items()) + "}"
        case _:
            assert_never(value)


def _number(value: float) -> str:
    text = json.dumps(value, allow_nan=False)
    # YAML 1.1 takes 1e+20 for text: its floats have a point
    return text if "." in text else text.replace("e", ".0e")


def _string(value: str) -> str:
    value.encode()  # half a surrogate pair raises UnicodeEncodeError, a ValueError
    return _TO_ESCAPE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
