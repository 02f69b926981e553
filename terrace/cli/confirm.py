"""Asks before something is gone for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from terrace.cli.failures import ExitCode, Failure, usage


def confirm_delete(what: str, names: Sequence[str], yes: bool) -> None:
    """Returns when the person agrees; raises Failure when not, or when nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage("Nobody can be asked here whether to delete.", "Give --yes to delete without a question.")
    try:
        agreed = typer.confirm(f"Delete {what} {', '.join(names)}?", err=True)
    except typer.Abort:
        raise Failure(ExitCode.INTERRUPTED, "Nothing was deleted.") from None
    if not agreed:
        raise Failure(ExitCode.FAILED, "Nothing was deleted.")
