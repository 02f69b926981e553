"""Shows an operation's steps while it runs: live on a terminal, one growing line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from terrace.cli.cells import clean, duration, text
from terrace.cli.output import console, for_people
from terrace.cli.reply import Json

if TYPE_CHECKING:
    from rich.status import Status

_MARK = {"done": "✓", "succeeded": "✓", "failed": "✗", "stuck": "✗", "undone": "↶", "superseded": "↷"}
_STYLE = {"✓": "green", "✗": "red"}
_LIVE = ("pending", "running", "undoing")


class Progress(Protocol):
    """What waiting tells its reader."""

    def show(self, operation: Json) -> None:
        """The operation as it is now; called at each look, the last time when it has ended."""

    def waiting(self, what: str) -> None:
        """What is waited for, when that has no steps; called at each look."""


@contextmanager
def progress_on(stream: TextIO, name: str = "") -> Iterator[Progress]:
    """Progress on a stream, fit for what it is; tidy also when the waiting is cut short.

    ``name`` is what an operation is about, if not its VM.
    """
    if not for_people(stream):
        line = _Line(stream, name)
        try:
            yield line
        finally:
            line.close()
        return
    with console(stream).status("") as status:
        yield _Live(status, name)


class _Live:
    """Finished steps stay as lines, what runs has a spinner."""

    def __init__(self, status: Status, name: str) -> None:
        self._status = status
        self._name = name
        self._news = _News()
        self._began = time.monotonic()

    def show(self, operation: Json) -> None:
        for step in self._news.of(operation):
            self._print(str(step["state"]), f"{step['name']:<12} {_took(step)}{_trouble(step)}", indent="  ")
        if operation.get("state") in _LIVE:
            self.waiting(f"{_title(operation, self._name)}: {_current(operation)}")
        else:
            self._print(str(operation.get("state")), f"{_title(operation, self._name)} {_ending(operation)}")

    def waiting(self, what: str) -> None:
        from rich.text import Text

        self._status.update(Text(f"{clean(what)} ({duration(time.monotonic() - self._began)})"))

    def _print(self, state: str, line: str, indent: str = "") -> None:
        from rich.text import Text

        mark = _MARK.get(state, "·")
        self._status.console.print(Text(indent) + Text(mark, _STYLE.get(mark, "")) + Text(f" {clean(line)}"))


class _Line:
    """One line that grows, for logs and pipes."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._news = _News()
        self._open = False

    def show(self, operation: Json) -> None:
        if not self._open:
            self._write(f"{_title(operation, self._name)}:")
        for step in self._news.of(operation):
            state = "" if step["state"] == "done" else f"{step['state']} "
            self._write(f" {step['name']} {state}{_took(step)}{_trouble(step)},")
        if operation.get("state") not in _LIVE:
            self._write(f" {_ending(operation)}")
            self.close()

    def waiting(self, what: str) -> None:
        if not self._open:
            self._write(what)

    def close(self) -> None:
        """Ends the line, if one is open."""
        if self._open:
            print(file=self._stream, flush=True)
            self._open = False

    def _write(self, part: str) -> None:
        print(clean(part), end="", file=self._stream, flush=True)
        self._open = True


class _News:
    """Which steps have changed since the last look, but for those still to come."""

    def __init__(self) -> None:
        self._told: dict[int, str] = {}

    def of(self, operation: Json) -> Iterator[Json]:
        for index, step in enumerate(operation.get("steps") or []):
            state = str(step.get("state"))
            if state != "pending" and self._told.get(index) != state:
                self._told[index] = state
                yield step


def _title(operation: Json, name: str) -> str:
    kind = str(operation.get("kind", "operation")).replace("_", " ")
    return f"{kind} {name or operation.get('vm_name') or ''}".rstrip()


def _current(operation: Json) -> str:
    if operation.get("state") == "undoing":
        return "undoing"
    steps = operation.get("steps") or []
    return next((str(step.get("name")) for step in steps if step.get("state") == "pending"), "waiting")


def _took(step: Json) -> str:
    milliseconds = step.get("duration_ms")
    return duration(milliseconds / 1000) if isinstance(milliseconds, int | float) else ""


def _trouble(step: Json) -> str:
    attempts = step.get("attempts") or 1
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    return tried + (f": {text(step['error'])}" if step.get("error") else "")


def _ending(operation: Json) -> str:
    state = str(operation.get("state"))
    words = [state]
    created, finished = operation.get("created_at"), operation.get("finished_at")
    if created and finished:
        took = datetime.fromisoformat(finished) - datetime.fromisoformat(created)
        words.append(f"in {duration(took.total_seconds())}")
    # what is more than a word or a list of them is for `op show`
    result = {key: value for key, value in (operation.get("result") or {}).items() if not isinstance(value, dict)}
    return " ".join(words) + (f" ({text(result)})" if result else "")
