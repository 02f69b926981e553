"""What can go wrong, as an exit code, a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes; scripts may rely on them."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    DENIED = 5
    TIMED_OUT = 6
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 the request or its operation failed; 2 wrong usage; 3 not found; "
    "4 the API cannot be reached or is not available; 5 not authenticated or not allowed; "
    "6 time-out while waiting (the operation goes on); 130 interrupted (the operation goes on)."
)


class Failure(Exception):
    """Ends the command: shown on stderr, its ``code`` is the exit code.

    ``facts`` are labelled details (field errors, request id); ``hint`` says what to do.
    """

    def __init__(self, code: ExitCode, message: str, *, facts: Sequence[tuple[str, str]] = (), hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts = tuple(facts)
        self.hint = hint

    def noting(self, first: str) -> Failure:
        """The same failure, with something to know before its hint."""
        return Failure(self.code, self.message, facts=self.facts, hint=f"{first} {self.hint}".strip())


def usage(message: str, hint: str = "") -> Failure:
    """A mistake in the arguments that was found before anything was sent."""
    return Failure(ExitCode.USAGE, message, hint=hint)
