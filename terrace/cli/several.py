"""One change to several things: all are sent first, then followed; one failure doesn't stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from terrace.cli.client import Api, path_of
from terrace.cli.confirm import confirm_delete
from terrace.cli.failures import ExitCode, Failure
from terrace.cli.output import say, show_failure
from terrace.cli.reply import Json, Reply
from terrace.cli.session import Session
from terrace.cli.watch import deadline_after, follow

_DELETE_S = 300.0


class Tally:
    """Failures of single things, shown at once; the first one decides the exit code."""

    def __init__(self) -> None:
        self._first: ExitCode | None = None

    def add(self, failure: Failure) -> None:
        """Shows a failure and goes on, unless the person interrupted."""
        if failure.code is ExitCode.INTERRUPTED:
            raise failure
        show_failure(failure)
        self._first = self._first or failure.code

    def end(self) -> None:
        """Ends the command with the first failure's exit code, if there was one."""
        if self._first is not None:
            raise typer.Exit(int(self._first))


def change_each(
    api: Api, names: Sequence[str], send: Callable[[str], Reply], wait_s: float | None, tally: Tally
) -> list[tuple[Reply, Json | None]]:
    """The accepted changes in order, each with its ended operation (None: there was none, or no waiting).

    ``wait_s`` None means not to wait.
    """
    accepted: list[Reply] = []
    for name in dict.fromkeys(names):
        try:
            accepted.append(send(name))
        except Failure as failure:
            tally.add(failure)
    if wait_s is None:
        return [(reply, None) for reply in accepted]
    deadline, ended = deadline_after(wait_s), []
    for reply in accepted:
        try:
            ended.append((reply, follow(api, reply.operation, deadline) if reply.operation else None))
        except Failure as failure:
            tally.add(failure)
    return ended


def delete_each(session: Session, what: str, collection: str, names: Sequence[str], yes: bool) -> None:
    """Deletes things that are gone at once, after asking."""
    confirm_delete(what, names, yes)
    tally = Tally()
    with session.api() as api:
        gone = change_each(api, names, lambda name: api.change("DELETE", path_of(collection, name)), _DELETE_S, tally)
    tell_deleted(len(gone), names)
    tally.end()


def tell_deleted(count: int, names: Sequence[str]) -> None:
    """How many of the named things are gone."""
    wanted = list(dict.fromkeys(names))
    say(f"Deleted {wanted[0]}." if count == len(wanted) == 1 else f"Deleted {count} of {len(wanted)}.")
