"""Asks before something is gone for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from terrace.cli.failures import ExitCode, Failure, usage


def confirm_delete(what: str, names: Sequence[str], yes: bool) -> None:
    """Returns when the person agrees to delete; raises Failure as ``confirm`` does."""
    confirm(f"Delete {what} {', '.join(names)}?", "delete", "deleted", yes)


def confirm(question: str, verb: str, participle: str, yes: bool) -> None:
    """Returns when the person agrees; raises Failure when not, or when nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage(f"Nobody can be asked here whether to {verb}.", f"Give --yes to {verb} without a question.")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        raise Failure(ExitCode.INTERRUPTED, f"Nothing was {participle}.") from None
    if not agreed:
        raise Failure(ExitCode.FAILED, f"Nothing was {participle}.")
