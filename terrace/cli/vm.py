"""``terrace vm list|show``, and how a VM looks in a table."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli.cells import age, field, gib, mib
from terrace.cli.client import path_of
from terrace.cli.complete import node_names, vm_names
from terrace.cli.options import Limit, Output
from terrace.cli.output import Column, Format, print_list, print_parts
from terrace.cli.reply import Json
from terrace.cli.session import session_of

COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("STATUS", field("status")),
    Column("NODE", field("node")),
    Column("IP", field("ip")),
    Column("CPU", field("cpu"), right=True),
    Column("RAM", lambda vm: mib(vm.get("ram_mib")), right=True),
    Column("DISK", gib("disk_gib"), right=True),
    Column("IMAGE", field("image")),
    Column("AGE", age("created_at"), right=True),
)
_VOLUME_COLUMNS = (
    Column("VOLUME", field("name")),
    Column("ID", field("id"), right=True),
    Column("SIZE", gib("size_gib"), right=True),
    Column("DEVICE", field("device")),
)


def list_vms(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only VMs in this status, such as running.")] = None,
    node: Annotated[str | None, typer.Option(help="Only VMs on this node.", autocompletion=node_names)] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only VMs with this label; repeatable.")
    ] = None,
    limit: Limit = None,
    output: Output = None,
) -> None:
    """List VMs, in every state and on every node."""
    session = session_of(ctx)
    wanted = [("status", status), ("node", node), *(("label", one) for one in label or [])]
    params = [(key, value) for key, value in wanted if value is not None]
    with session.api() as api:
        print_list(list(api.pages("/vms", params, limit)), COLUMNS, output or session.output)


def show_vm(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(help="Name or id.", autocompletion=vm_names)],
    output: Output = None,
) -> None:
    """Show everything about a VM."""
    session = session_of(ctx)
    with session.api() as api:
        print_vm(api.get(path_of("vms", vm)), output or session.output)


def print_vm(vm: Json, output: Format) -> None:
    """Everything about a VM, and its volumes with where the guest finds them."""
    print_parts(vm, "volumes", _VOLUME_COLUMNS, output)
