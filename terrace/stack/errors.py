"""What goes wrong with a local stack, said in sentences for the person who ran the command."""

import signal
import sys
from collections.abc import Callable


class StackError(Exception):
    """One clear sentence; `details` are lines that help (a log's tail, a command's output)."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


class SettingsError(StackError):
    """A setting has a value that can't be used."""


def told(command: Callable[[], int]) -> int:
    """The exit status of a command; what goes wrong is said on standard error, and ends it with 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        return command()
    except StackError as error:
        print(f"\nError: {error}", file=sys.stderr)
        if error.details:
            print("".join(f"    {line}\n" for line in error.details.splitlines()), end="", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
    return 1
