"""``terrace op``: the operations, which are all changes that were made."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli.cells import age, field, text
from terrace.cli.client import path_of
from terrace.cli.complete import operation_ids, vm_names
from terrace.cli.options import Limit, Output, Timeout
from terrace.cli.output import Column, Format, print_list, print_parts
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.watch import deadline_after, follow

op_app = typer.Typer(no_args_is_help=True, help="Operations: every change, its steps and their times.")

Operation = Annotated[int, typer.Argument(metavar="ID", min=1, help="Its id.", autocompletion=operation_ids)]

_COLUMNS = (
    Column("ID", field("id"), right=True),
    Column("KIND", field("kind")),
    Column("VM", lambda op: text(op.get("vm_name") or op.get("vm"))),
    Column("VOLUME", field("volume")),
    Column("NODE", field("node")),
    Column("STATE", field("state")),
    Column("AGE", age("created_at"), right=True),
    Column("ERROR", lambda op: text((op.get("error") or {}).get("detail"))),
)
_STEP_COLUMNS = (
    Column("STEP", field("name")),
    Column("STATE", field("state")),
    Column("MS", field("duration_ms"), right=True),
    Column("ATTEMPTS", field("attempts"), right=True),
    Column("ERROR", field("error")),
)


@op_app.command("list")
def list_operations(
    ctx: typer.Context,
    vm: Annotated[str | None, typer.Option(help="Only those of this VM.", autocompletion=vm_names)] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state, such as stuck.")] = None,
    limit: Limit = None,
    output: Output = None,
) -> None:
    """List operations."""
    session = session_of(ctx)
    filters = [(name, value) for name, value in (("vm", vm), ("state", state)) if value]
    with session.api() as api:
        found = list(api.pages("/operations", filters, limit))
    print_list(found, _COLUMNS, output or session.output, name="id")


@op_app.command("show")
def show_operation(ctx: typer.Context, operation: Operation, output: Output = None) -> None:
    """Show an operation and its steps."""
    session = session_of(ctx)
    with session.api() as api:
        _print(api.get(path_of("operations", operation)), output or session.output)


@op_app.command("wait")
def wait_operation(ctx: typer.Context, operation: Operation, timeout: Timeout = 300, output: Output = None) -> None:
    """Wait until an operation has ended; exit code 1 if it failed."""
    session = session_of(ctx)
    with session.api() as api:
        _print(follow(api, operation, deadline_after(timeout)), output or session.output)


def _print(operation: Json, output: Format) -> None:
    print_parts(operation, "steps", _STEP_COLUMNS, output, name="id")
