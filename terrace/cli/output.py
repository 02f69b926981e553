"""What a command prints: tables for people, JSON or names for programs; messages go to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from terrace.cli.cells import clean, style_of, text
from terrace.cli.failures import Failure
from terrace.cli.reply import Json

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    """How results are written to stdout."""

    TABLE = "table"
    JSON = "json"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title and how an item becomes its text."""

    title: str
    cell: Callable[[Json], str]
    right: bool = False


def say(message: str) -> None:
    """A message for people, on stderr."""
    print(clean(message), file=sys.stderr, flush=True)


def show_failure(failure: Failure) -> None:
    """A failure on stderr: the sentence, its details, and what to do."""
    error = "\033[1;31mError:\033[0m" if colours(sys.stderr) else "Error:"
    print(error, clean(failure.message), file=sys.stderr)
    width = max((len(label) for label, _ in failure.facts), default=0)
    for label, value in failure.facts:
        say(f"  {label:<{width}}  {value}")
    if failure.hint:
        say(f"What to do: {failure.hint}")


def print_list(items: Sequence[Json], columns: Sequence[Column], output: Format, name: str = "name") -> None:
    """A collection; ``name`` is the field that identifies an item."""
    if output is not Format.TABLE:
        _print_data(list(items), items, output, name)
        return
    rows = [[clean(column.cell(item)) for column in columns] for item in items]
    if not for_people(sys.stdout):
        _print_plain([[column.title for column in columns], *rows])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=style_of(cell)) for cell in row))
    console(sys.stdout).print(table)


def print_one(item: Json, output: Format, name: str = "name") -> None:
    """One thing, with every field the API gave."""
    if output is not Format.TABLE:
        _print_data(item, [item], output, name)
        return
    rows = [[field, clean(text(value))] for field, value in item.items()]
    if not for_people(sys.stdout):
        _print_plain(rows)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for field, value in rows:
        table.add_row(Text(field, style="bold"), Text(value, style=style_of(value), overflow="fold"))
    console(sys.stdout).print(table)


def print_parts(item: Json, part: str, columns: Sequence[Column], output: Format, name: str = "name") -> None:
    """One thing, with the list in its field ``part`` as a table of its own, if there is something in it."""
    parts = item.get(part)
    if output is not Format.TABLE or not parts:
        print_one(item, output, name)
        return
    print_one({key: value for key, value in item.items() if key != part}, output)
    print()
    print_list(parts, columns, output)


def print_several(items: Sequence[Json], columns: Sequence[Column], output: Format) -> None:
    """The results of a change to one or more things: as JSON one object, or an array of several."""
    if output is Format.JSON and len(items) == 1:
        print_one(items[0], output)
    elif items:
        print_list(items, columns, output)


def for_people(stream: TextIO) -> bool:
    """Whether a person looks at the stream: a terminal that can do more than print lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colours(stream: TextIO) -> bool:
    """Whether colours are welcome (https://no-color.org; --no-color sets the same variable)."""
    return for_people(stream) and not os.environ.get("NO_COLOR")


def console(stream: TextIO) -> Console:
    """Rich's console on a stream that people look at."""
    from rich.console import Console

    return Console(file=stream, highlight=False, emoji=False, no_color=not colours(stream))


def _print_data(data: Any, items: Sequence[Json], output: Format, name: str) -> None:
    if output is Format.JSON:
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    for item in items:
        print(clean(text(item.get(name))))


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
