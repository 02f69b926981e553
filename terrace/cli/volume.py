"""``terrace volume``: disks of their own, that VMs can be given."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli import inputs
from terrace.cli.cells import age, field, gib
from terrace.cli.client import path_of
from terrace.cli.complete import vm_names, volume_names
from terrace.cli.failures import Failure, usage
from terrace.cli.options import Limit, Output, Timeout, Wait, Yes
from terrace.cli.output import Column, print_list, print_one, print_several
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.several import Tally, change_each, delete_each
from terrace.cli.watch import deadline_after, settled

volume_app = typer.Typer(no_args_is_help=True, help="Volumes: disks of their own, for VMs to be given.")

Volume = Annotated[str, typer.Argument(metavar="VOLUME", help="Name or id.", autocompletion=volume_names)]
Volumes = Annotated[list[str], typer.Argument(metavar="VOLUME", help="Names or ids.", autocompletion=volume_names)]
WithVm = Annotated[bool, typer.Option("--delete-with-vm", help="Delete it when its VM is deleted.")]

_COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("STATUS", field("status")),
    Column("SIZE", gib("size_gib"), right=True),
    Column("VM", field("vm_name")),
    Column("DEVICE", field("device")),
    Column("NODE", field("node")),
    Column("AGE", age("created_at"), right=True),
)


@volume_app.command("list")
def list_volumes(
    ctx: typer.Context,
    vm: Annotated[str | None, typer.Option(help="Only those of this VM.", autocompletion=vm_names)] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this status, such as available.")] = None,
    limit: Limit = None,
    output: Output = None,
) -> None:
    """List volumes."""
    session = session_of(ctx)
    filters = [(name, value) for name, value in (("vm", vm), ("status", status)) if value]
    with session.api() as api:
        print_list(list(api.pages("/volumes", filters, limit)), _COLUMNS, output or session.output)


@volume_app.command("show")
def show_volume(ctx: typer.Context, volume: Volume, output: Output = None) -> None:
    """Show everything about a volume."""
    session = session_of(ctx)
    with session.api() as api:
        print_one(api.get(path_of("volumes", volume)), output or session.output)


@volume_app.command("create")
def create_volume(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")],
    size: Annotated[str, typer.Option(metavar="SIZE", help="20 (GiB), 20G or 1T.")],
    vm: Annotated[str | None, typer.Option(help="VM to attach it to.", autocompletion=vm_names)] = None,
    delete_with_vm: WithVm = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Create an empty volume, and attach it with --vm."""
    if vm is None and delete_with_vm:
        raise usage("--delete-with-vm goes with --vm.")
    if vm is not None and not wait:
        raise usage("--vm and --no-wait exclude each other.", "A volume is attached when it has been created.")
    body = {"name": name, "size_gib": inputs.volume_gib(size, "--size")}
    session = session_of(ctx)
    with session.api() as api:
        deadline = deadline_after(timeout) if wait else None
        if vm is not None:
            api.get(path_of("vms", vm))  # a slip of the pen is told before anything is made
        volume = settled(api, api.change("POST", "/volumes", body), _path, deadline)
        if vm is not None:
            try:
                path = path_of("volumes", volume["id"], "actions", "attach")
                volume = settled(api, api.change("POST", path, _to(vm, delete_with_vm)), _path, deadline)
            except Failure as failure:
                note = f"Volume {name} was created; `terrace volume show {name}` tells whether it is attached."
                raise failure.noting(note) from None
    print_one(volume, output or session.output)


@volume_app.command("attach")
def attach(
    ctx: typer.Context,
    volume: Volume,
    vm: Annotated[str, typer.Argument(metavar="VM", help="Name or id.", autocompletion=vm_names)],
    delete_with_vm: WithVm = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Plug a volume into a VM, running or not. A guest with udev finds it as DEVICE."""
    _act(ctx, "attach", [volume], _to(vm, delete_with_vm), timeout if wait else None, output)


@volume_app.command("detach")
def detach(
    ctx: typer.Context, volume: Volumes, wait: Wait = True, timeout: Timeout = 300, output: Output = None
) -> None:
    """Unplug volumes from their VMs, running or not. Unmount them in the guest first."""
    _act(ctx, "detach", volume, None, timeout if wait else None, output)


@volume_app.command("resize")
def resize(
    ctx: typer.Context,
    volume: Volume,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="The new size: 40 (GiB), 40G or 1T.")],
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Grow a volume, in use or not. Its file system is grown in the guest, after this."""
    body = {"size_gib": inputs.volume_gib(size, "SIZE")}
    _act(ctx, "resize", [volume], body, timeout if wait else None, output)


@volume_app.command("delete")
def delete(
    ctx: typer.Context,
    volume: Volumes,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Delete volumes that no VM has, with all they hold. Prints something on stdout only with --no-wait."""
    wait_s = timeout if wait else None
    delete_each(session_of(ctx), "volume", volume, ["volumes"], yes, wait_s=wait_s, columns=_COLUMNS, output=output)


def _act(
    ctx: typer.Context, action: str, volumes: list[str], body: Json | None, wait_s: float | None, output: Output
) -> None:
    session, tally = session_of(ctx), Tally()
    with session.api() as api:
        replies = change_each(
            api,
            volumes,
            lambda name: api.change("POST", path_of("volumes", name, "actions", action), body),
            wait_s,
            tally,
            in_turn=True,
        )
        now = [api.get(_path(reply.body)) if operation else reply.body for reply, operation in replies]
    print_several(now, _COLUMNS, output or session.output)
    tally.end()


def _path(volume: Json) -> str:
    return path_of("volumes", volume["id"])


def _to(vm: str, delete_with_vm: bool) -> Json:
    return {"vm": vm, "delete_with_vm": True} if delete_with_vm else {"vm": vm}
