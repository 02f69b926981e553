"""User data that a client sends: a ``#cloud-config`` document or a script, checked before it is stored.

A document must mean the same to YAML 1.1 parsers (cloud-init's) and to JSON parsers (small guests'), as it
reaches the guest as JSON; so it may hold only what JSON can say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from terrace.errors import TerraceError

MAX_BYTES = 65536
MAX_DEPTH = 32
MAX_NODES = 20_000  # after aliases are expanded
MAX_KEY_CHARACTERS = 256  # YAML ends an implicit key after 1,024
MAX_INTEGER = 2**64
CLOUD_CONFIG = "#cloud-config"
SCRIPT = "#!"

# Keys whose value is a list (https://cloudinit.readthedocs.io/en/latest/reference/modules.html).
LIST_KEYS = frozenset(
    [
        *("bootcmd", "fs_setup", "mounts", "packages", "runcmd"),
        *("ssh_authorized_keys", "ssh_import_id", "users", "write_files"),
    ]
)


def validate_user_data(text: str) -> None:
    """Raise TerraceError ``invalid_user_data``, with a sentence that helps, unless a guest can use it."""
    check_text(text)
    if not is_script(text):
        parse_cloud_config(text)


def is_script(text: str) -> bool:
    """A script, rather than a document."""
    return text.startswith(SCRIPT)


def check_text(text: str) -> None:
    """Size, characters and the first line; raises TerraceError."""
    _check_characters(text)
    if len(text.encode()) > MAX_BYTES:
        raise _invalid(f"user_data is larger than {MAX_BYTES} bytes.")
    first_line = text.split("\n", 1)[0].rstrip()
    if not is_script(text) and first_line != CLOUD_CONFIG:
        raise _invalid('user_data must begin with a line "#cloud-config" or with "#!", as a script does.')


def parse_cloud_config(text: str) -> dict[str, Any]:
    """The document as JSON values; raises TerraceError."""
    try:
        value = _load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise _invalid(f"user_data is not valid YAML{place}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, *_CONSTRUCTOR_ERRORS):
        raise _invalid("user_data is not valid YAML.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid("user_data must hold a mapping (keys and values) below its first line.")
    _check_value(value, "")
    _check_shapes(value)
    return value


# What PyYAML's constructors raise, besides its own errors, for a value that its explicit tag does not fit.
_CONSTRUCTOR_ERRORS = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)

_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FastLoader):  # type: ignore[misc]
    """Safe, and reads dates as the text they are written with: JSON has none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _FastLoader.yaml_implicit_resolvers.items()
}


def _load(text: str) -> Any:
    """Parse, but look at the structure before any of it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_FastLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _invalid(f"user_data is nested more than {MAX_DEPTH} levels deep.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _expanded_nodes(root, {})
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _expanded_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes once aliases are expanded; raises TerraceError when there are too many.

    Aliases point backwards, so ``known`` has their counts and the recursion is only as deep as the text.
    """
    if (count := known.get(id(node))) is not None:
        if count == 0:  # still being counted
            raise _invalid("user_data has an alias that contains itself.")
        return count
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        total += sum(_expanded_nodes(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_expanded_nodes(item, known) for item in node.value)
    if total > MAX_NODES:
        raise _invalid(f"user_data holds more than {MAX_NODES} values, aliases expanded.")
    known[id(node)] = total
    return total


def _check_value(value: object, path: str) -> None:
    match value:
        case None | bool():
            pass
        case int():
            if abs(value) >= MAX_INTEGER:
                raise _invalid(f"user_data: {path} is a number of more than 64 bits; put it in quotes.")
        case str():
            _check_characters(value)
        case float():
            if not math.isfinite(value):
                raise _invalid(f"user_data: {path} is not a finite number.")
        case list():
            for index, item in enumerate(value):
                _check_value(item, f"{path}[{index}]")
        case dict():
            for key, item in value.items():
                _check_key(key, path)
                _check_value(item, f"{path}.{key}" if path else key)
        case _:
            raise _invalid(f"user_data: {path} has a type that is not in JSON ({type(value).__name__}).")


def _check_key(key: object, path: str) -> None:
    where = f"in {path}" if path else "at the top"
    if not isinstance(key, str):
        raise _invalid(f"user_data: the key {str(key)[:40]} {where} is not text; put it in quotes.")
    if len(key) > MAX_KEY_CHARACTERS:
        raise _invalid(f"user_data: a key {where} is longer than {MAX_KEY_CHARACTERS} characters.")
    _check_characters(key)


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise _invalid("user_data holds a NUL character.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _invalid("user_data holds half of a surrogate pair, which is not a character.")


def _check_shapes(config: Mapping[str, Any]) -> None:
    for key in LIST_KEYS & config.keys():
        if not isinstance(config[key], list):
            raise _invalid(f"user_data: {key} must be a list.")
    for key in ("runcmd", "bootcmd"):
        for item in config.get(key, ()):
            if not isinstance(item, str | list):
                raise _invalid(f"user_data: each entry of {key} must be text or a list of words.")
    for item in config.get("write_files", ()):
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            raise _invalid("user_data: each entry of write_files must be a mapping with a path.")
    for item in config.get("users", ()):
        if not isinstance(item, str) and not (isinstance(item, dict) and isinstance(item.get("name"), str)):
            raise _invalid('user_data: each entry of users must be text ("default") or a mapping with a name.')
    for item in config.get("ssh_authorized_keys", ()):
        if not isinstance(item, str):
            raise _invalid("user_data: each entry of ssh_authorized_keys must be text.")


def _invalid(detail: str) -> TerraceError:
    return TerraceError("invalid_user_data", detail)
