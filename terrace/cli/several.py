"""One change to several things: all are sent first, then followed; one failure doesn't stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from terrace.cli.client import Api, path_of
from terrace.cli.confirm import confirm_delete
from terrace.cli.failures import ExitCode, Failure
from terrace.cli.output import Column, Format, print_several, say, show_failure
from terrace.cli.reply import Json, Reply
from terrace.cli.session import Session
from terrace.cli.watch import deadline_after, follow, name_in

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
    api: Api,
    names: Sequence[str],
    send: Callable[[str], Reply],
    wait_s: float | None,
    tally: Tally,
    *,
    in_turn: bool = False,
) -> list[tuple[Reply, Json | None]]:
    """The accepted changes in order, each with its ended operation (None: there was none, or no waiting).

    ``wait_s`` None means not to wait. ``in_turn``: each is sent when the one before has ended, as changes must
    be that need the same VM.
    """
    wanted = list(dict.fromkeys(names))
    deadline = None if wait_s is None else deadline_after(wait_s)
    ended: list[tuple[Reply, Json | None]] = []
    for batch in [[name] for name in wanted] if in_turn else [wanted]:
        accepted: list[Reply] = []
        for name in batch:
            try:
                accepted.append(send(name))
            except Failure as failure:
                tally.add(failure)
        for reply in accepted:
            try:
                ended.append((reply, _ended(api, reply, deadline)))
            except Failure as failure:
                tally.add(failure)
    return ended


def _ended(api: Api, reply: Reply, deadline: float | None) -> Json | None:
    if deadline is None or not reply.operation:
        return None
    return follow(api, reply.operation, deadline, name_in(reply.body or {}))


def delete_each(
    session: Session,
    what: str,
    names: Sequence[str],
    where: Sequence[str],
    yes: bool,
    *,
    wait_s: float | None = _DELETE_S,
    columns: Sequence[Column] = (),
    output: Format | None = None,
    in_turn: bool = False,
    forget: Callable[[Json], None] = lambda _: None,
) -> None:
    """Deletes the things of these names below the path ``where``, after asking.

    Prints what is going only with ``wait_s`` None. ``forget`` is told of each thing that is going, or was
    waited for.
    """
    confirm_delete(what, names, yes)
    tally = Tally()
    with session.api() as api:
        replies = change_each(
            api, names, lambda name: api.change("DELETE", path_of(*where, name)), wait_s, tally, in_turn=in_turn
        )
    going = [reply.body for reply, _ in replies if reply.body]
    for gone in going:
        forget(gone)
    if wait_s is None:
        print_several(going, columns, output or session.output)
    else:
        _tell_deleted(len(replies), names)
    tally.end()


def _tell_deleted(count: int, names: Sequence[str]) -> None:
    """How many of the named things are gone."""
    wanted = list(dict.fromkeys(names))
    say(f"Deleted {wanted[0]}." if count == len(wanted) == 1 else f"Deleted {count} of {len(wanted)}.")
