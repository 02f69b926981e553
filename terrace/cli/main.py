"""The ``terrace`` command: global options, and the commands by what they are about.

Exit codes: 0 done; 1 the request or its operation failed; 2 wrong usage; 3 not found; 4 the API cannot be
reached or is not available; 5 not authenticated or not allowed; 6 time-out while waiting (the operation goes
on); 130 interrupted (the operation goes on).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from terrace import __version__
from terrace.cli import vm, vm_change, vm_create
from terrace.cli.admin import admin_app
from terrace.cli.failures import EXIT_CODES_HELP, Failure
from terrace.cli.image import image_app
from terrace.cli.key import key_app
from terrace.cli.network import network_app
from terrace.cli.node import node_app
from terrace.cli.op import op_app
from terrace.cli.output import Format, show_failure
from terrace.cli.session import Session
from terrace.cli.snapshot import snapshot_app
from terrace.cli.ssh import ssh
from terrace.cli.volume import volume_app


class _Root(TyperGroup):
    """Turns a failure into its message and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            show_failure(failure)
            raise typer.Exit(int(failure.code)) from None


app = typer.Typer(
    cls=_Root,
    name="terrace",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES_HELP,
)
vm_app = typer.Typer(no_args_is_help=True, help="VMs: create, log in, start, stop, delete.")
vm_app.command("create")(vm_create.create_vm)
vm_app.command("list")(vm.list_vms)
vm_app.command("show")(vm.show_vm)
vm_app.command("ssh")(ssh)
vm_app.command("start")(vm_change.start)
vm_app.command("stop")(vm_change.stop)
vm_app.command("reboot")(vm_change.reboot)
vm_app.command("reset")(vm_change.reset)
vm_app.command("poweroff")(vm_change.poweroff)
vm_app.command("delete")(vm_change.delete)
app.add_typer(vm_app, name="vm")
app.add_typer(volume_app, name="volume")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(image_app, name="image")
app.add_typer(key_app, name="key")
app.add_typer(network_app, name="network")
app.add_typer(node_app, name="node")
app.add_typer(op_app, name="op")
app.add_typer(admin_app, name="admin")


def _no_colour(value: bool) -> bool:
    # the variable reaches everything that prints, also the help and its errors
    if value:
        os.environ["NO_COLOR"] = "1"
    return value


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="TERRACE_URL", help="The API's address.", show_envvar=True)] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token. [default: the token in $TERRACE_TOKEN, or $TERRACE_TOKEN_FILE]"),
    ] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="How to print results; also an option of each command.")
    ] = Format.TABLE,
    no_color: Annotated[
        bool,
        typer.Option("--no-color", help="No colours, as with $NO_COLOR.", is_eager=True, callback=_no_colour),
    ] = False,
) -> None:
    """Terrace, a private cloud: create VMs and log in to them.

    TERRACE_URL and TERRACE_TOKEN say which installation and who you are; `. var/env` in the checkout of a
    running platform sets both. Results go to stdout, messages and progress to stderr.
    """
    ctx.obj = Session(url, token_file, output)


@app.command("version")
def version() -> None:
    """Print the version of this command."""
    print(__version__)


def main() -> None:
    """Runs the command; never returns normally."""
    app(prog_name="terrace")


if __name__ == "__main__":
    main()
