"""``terrace snapshot``: points in time of all disks of a VM."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli.cells import age, field, gib, text
from terrace.cli.client import path_of
from terrace.cli.complete import snapshot_names, vm_names
from terrace.cli.confirm import confirm
from terrace.cli.failures import usage
from terrace.cli.options import Limit, Output, Timeout, Wait, Yes
from terrace.cli.output import Column, Format, print_list, print_parts, print_several
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.several import delete_each
from terrace.cli.watch import deadline_after, settled

snapshot_app = typer.Typer(no_args_is_help=True, help="Snapshots: points in time of all disks of a VM.")

Vm = Annotated[str, typer.Argument(metavar="VM", help="Name or id.", autocompletion=vm_names)]
Snapshot = Annotated[str, typer.Argument(metavar="NAME", help="Name or id.", autocompletion=snapshot_names)]

_COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("VM", field("vm_name")),
    Column("STATUS", field("status")),
    Column("CONSISTENCY", field("consistency")),
    Column("DISKS", lambda snapshot: str(len(snapshot.get("disks") or [])), right=True),
    Column("AGE", age("created_at"), right=True),
)
_DISK_COLUMNS = (
    Column("DISK", lambda disk: text(disk.get("volume") or "system")),
    Column("SIZE", gib("size_gib"), right=True),
)


@snapshot_app.command("list")
def list_snapshots(
    ctx: typer.Context,
    vm: Annotated[
        str | None,
        typer.Argument(metavar="[VM]", help="Only those of this VM: name or id.", autocompletion=vm_names),
    ] = None,
    limit: Limit = None,
    output: Output = None,
) -> None:
    """List snapshots, of one VM or of all."""
    session = session_of(ctx)
    path = "/snapshots" if vm is None else path_of("vms", vm, "snapshots")
    with session.api() as api:
        print_list(list(api.pages(path, [], limit)), _COLUMNS, output or session.output)


@snapshot_app.command("show")
def show_snapshot(ctx: typer.Context, vm: Vm, name: Snapshot, output: Output = None) -> None:
    """Show everything about a snapshot."""
    session = session_of(ctx)
    with session.api() as api:
        _print(api.get(path_of("vms", vm, "snapshots", name)), output or session.output)


@snapshot_app.command("create")
def create_snapshot(
    ctx: typer.Context,
    vm: Vm,
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")],
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Take a snapshot of all disks of a VM at one moment, running or not."""
    session = session_of(ctx)
    with session.api() as api:
        deadline = deadline_after(timeout) if wait else None
        snapshot = settled(api, api.change("POST", path_of("vms", vm, "snapshots"), {"name": name}), _path, deadline)
    _print(snapshot, output or session.output)


@snapshot_app.command("restore")
def restore_snapshot(
    ctx: typer.Context,
    vm: Vm,
    name: Snapshot,
    force: Annotated[bool, typer.Option("--force", help="Power a running VM off for it, and start it again.")] = False,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Give a VM's disks back what they held. All that was written since is lost."""
    confirm(f"Restore {name}, and lose what {vm} has written since?", "restore", "restored", yes)
    session = session_of(ctx)
    with session.api() as api:
        path = path_of("vms", vm, "snapshots", name, "actions", "restore")
        deadline = deadline_after(timeout) if wait else None
        snapshot = settled(api, api.change("POST", path, {"force": True} if force else None), _path, deadline)
    print_several([snapshot], _COLUMNS, output or session.output)


@snapshot_app.command("delete")
def delete_snapshots(
    ctx: typer.Context,
    vm: Vm,
    name: Annotated[list[str], typer.Argument(metavar="NAME", help="Names or ids.", autocompletion=snapshot_names)],
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Delete snapshots of a VM; its disks stay as they are. Prints something on stdout only with --no-wait."""
    if len(name) > 1 and not wait:
        raise usage("--no-wait takes one snapshot: those of a VM are deleted in turn.")
    delete_each(
        session_of(ctx),
        "snapshot",
        name,
        ["vms", vm, "snapshots"],
        yes,
        wait_s=timeout if wait else None,
        columns=_COLUMNS,
        output=output,
        in_turn=True,
    )


def _print(snapshot: Json, output: Format) -> None:
    print_parts(snapshot, "disks", _DISK_COLUMNS, output)


def _path(snapshot: Json) -> str:
    return path_of("vms", snapshot["vm"], "snapshots", snapshot["id"])
