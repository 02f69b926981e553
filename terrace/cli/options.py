"""The options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli.output import Format

Output = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="table (default), json as the API returned it, or only the names."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many. [default: all]")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the operation, showing its steps.")]
Timeout = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="The longest to wait.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
