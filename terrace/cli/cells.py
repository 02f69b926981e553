"""How single values look in a table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from terrace.cli.reply import Json

_STYLE = {
    **dict.fromkeys(("running", "active", "available", "in_use", "succeeded", "done"), "green"),
    **dict.fromkeys(
        ("creating", "starting", "stopping", "rebooting", "rebuilding", "migrating", "deleting", "importing",
         "attaching", "detaching", "restoring", "pending", "draining", "undoing", "paused", "rescue", "maintenance",
         "orphan"),
        "yellow",
    ),
    **dict.fromkeys(("error", "crashed", "unknown", "failed", "stuck", "down", "missing"), "red"),
    **dict.fromkeys(("stopped", "superseded", "undone", "foreign"), "dim"),
}  # fmt: skip


def style_of(cell: str) -> str:
    """The colour of a status word; empty for other text."""
    return _STYLE.get(cell, "")


def clean(value: str) -> str:
    """The text in one line without control characters: what a label says must not steer a terminal."""
    spaced = value.replace("\r", "").replace("\n", " ").replace("\t", " ")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in spaced)


def text(value: Any) -> str:
    """A JSON value in a cell; nothing is ``-``."""
    match value:
        # not {}: as a pattern it would be every mapping
        case None | "" | []:
            return "-"
        case dict() if not value:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key}={text(item)}" for key, item in value.items())
        case list():
            return ", ".join(text(item) for item in value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def field(name: str) -> Callable[[Json], str]:
    """A cell that shows a field as it is."""
    return lambda item: text(item.get(name))


def age(name: str) -> Callable[[Json], str]:
    """A cell that shows how long ago a time was."""
    return lambda item: _age(item.get(name))


def gib(name: str) -> Callable[[Json], str]:
    """A cell that shows a size in GiB."""
    return lambda item: f"{text(item.get(name))}GiB"


def mib(value: Any) -> str:
    """A size in MiB, from 1024 on as GiB. Cells hold no blanks, so that columns can be cut by them."""
    if not isinstance(value, int | float):
        return text(value)
    return f"{value / 1024:.4g}GiB" if value >= 1024 else f"{value:g}MiB"


def size_bytes(value: Any) -> str:
    """A size in bytes, in the unit that suits it."""
    if not isinstance(value, int | float):
        return text(value)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}GiB"


def duration(seconds: float) -> str:
    """A duration as a person says it: 4 ms, 1.2 s, 3 min 5 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _age(value: Any) -> str:
    if not isinstance(value, str):
        return text(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    seconds = int((datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"
