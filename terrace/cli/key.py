"""``terrace key``: stored SSH keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terrace.cli import inputs
from terrace.cli.cells import age, field
from terrace.cli.client import path_of
from terrace.cli.complete import key_names
from terrace.cli.options import Limit, Output, Yes
from terrace.cli.output import Column, print_list, print_one
from terrace.cli.session import session_of
from terrace.cli.several import delete_each

key_app = typer.Typer(no_args_is_help=True, help="SSH keys: stored under a name for `vm create --key`.")

_COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("FINGERPRINT", field("fingerprint")),
    Column("AGE", age("created_at"), right=True),
)


@key_app.command("list")
def list_keys(ctx: typer.Context, limit: Limit = None, output: Output = None) -> None:
    """List stored keys."""
    session = session_of(ctx)
    with session.api() as api:
        print_list(list(api.pages("/ssh-keys", [], limit)), _COLUMNS, output or session.output)


@key_app.command("show")
def show_key(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Name or id.", autocompletion=key_names)],
    output: Output = None,
) -> None:
    """Show a stored key."""
    session = session_of(ctx)
    with session.api() as api:
        print_one(api.get(path_of("ssh-keys", key)), output or session.output)


@key_app.command("create")
def create_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The name to store it under.")],
    source: Annotated[Path, typer.Argument(metavar="FILE|-", help="The file with the public key, - for stdin.")],
    output: Output = None,
) -> None:
    """Store a public key."""
    public_key = inputs.public_key_in(inputs.read_text(source, "the key file"), str(source))
    session = session_of(ctx)
    with session.api() as api:
        reply = api.change("POST", "/ssh-keys", {"name": name, "public_key": public_key})
    print_one(reply.body, output or session.output)


@key_app.command("delete")
def delete_keys(
    ctx: typer.Context,
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="Names or ids.", autocompletion=key_names)],
    yes: Yes = False,
) -> None:
    """Delete stored keys. VMs made with them keep them."""
    delete_each(session_of(ctx), "key", key, ["ssh-keys"], yes)
