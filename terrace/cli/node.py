"""``terrace node``: the machines that VMs run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from terrace.cli.cells import age, field, mib, size_bytes
from terrace.cli.client import path_of
from terrace.cli.complete import node_names
from terrace.cli.options import Limit, Output, Timeout, Wait
from terrace.cli.output import Column, Format, print_list, print_one, print_parts, print_several
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.several import Tally, change_each
from terrace.cli.watch import deadline_after, settled

node_app = typer.Typer(no_args_is_help=True, help="Nodes: the machines that VMs run on.")

Node = Annotated[str, typer.Argument(metavar="NODE", help="Its name.", autocompletion=node_names)]
Nodes = Annotated[list[str], typer.Argument(metavar="NODE", help="Names.", autocompletion=node_names)]


def _claimed_of(claimed: str, size: str, ratio: str, show: Callable[[float], str]) -> Callable[[Json], str]:
    """A cell with what is claimed, and what can be: the node's size times its overcommit."""

    def cell(node: Json) -> str:
        capacity = (node.get(size) or 0) * (node.get(ratio) or 1)
        return f"{show(node.get(claimed) or 0)}/{show(capacity)}"

    return cell


_COLUMNS = (
    Column("NAME", field("name")),
    Column("STATE", field("state")),
    Column("VMS", field("vms"), right=True),
    Column("CPU", _claimed_of("cpu_claimed", "cpu", "cpu_overcommit", "{:g}".format), right=True),
    Column("RAM", _claimed_of("ram_claimed_mib", "ram_mib", "ram_overcommit", mib), right=True),
    Column("DISK", _claimed_of("disk_claimed_gib", "disk_gib", "disk_overcommit", "{:g}GiB".format), right=True),
    Column("STORAGE", field("storage")),
    Column("USED", lambda node: size_bytes(node.get("pool_used_bytes")), right=True),
    Column("SEEN", age("last_seen"), right=True),
)
_DRIFT_COLUMNS = (
    Column("VOLUME", field("name")),
    Column("KIND", field("kind")),
    Column("FOR", age("first_seen"), right=True),
    Column("SEEN", age("last_seen"), right=True),
)


@node_app.command("list")
def list_nodes(ctx: typer.Context, limit: Limit = None, output: Output = None) -> None:
    """List nodes with what is claimed of them, out of what can be."""
    session = session_of(ctx)
    with session.api() as api:
        print_list(list(api.pages("/nodes", [], limit)), _COLUMNS, output or session.output)


@node_app.command("show")
def show_node(ctx: typer.Context, node: Node, output: Output = None) -> None:
    """Show everything about a node."""
    session = session_of(ctx)
    with session.api() as api:
        print_one(api.get(path_of("nodes", node)), output or session.output)


@node_app.command("drain")
def drain(ctx: typer.Context, node: Nodes, output: Output = None) -> None:
    """Place no new VMs on nodes; those there go on."""
    _act(ctx, "drain", node, output)


@node_app.command("undrain")
def undrain(ctx: typer.Context, node: Nodes, output: Output = None) -> None:
    """Place new VMs on nodes again, after drain or maintenance."""
    _act(ctx, "undrain", node, output)


@node_app.command("maintenance")
def maintenance(ctx: typer.Context, node: Nodes, output: Output = None) -> None:
    """Take nodes out of service for work on them."""
    _act(ctx, "maintenance", node, output)


@node_app.command("drift")
def drift(
    ctx: typer.Context,
    node: Node,
    clean: Annotated[
        bool, typer.Option("--clean", help="Compare now, and put this cloud's own orphans away, for a week.")
    ] = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Show how a node's pool differs from what is recorded."""
    session, path = session_of(ctx), path_of("nodes", node, "drift")
    with session.api() as api:
        if clean:
            deadline = deadline_after(timeout) if wait else None
            found = settled(api, api.change("POST", f"{path}/clean"), lambda _: path, deadline)
        else:
            found = api.get(path)
    shown = output or session.output
    if shown is Format.NAME:
        print_list(found["differences"], _DRIFT_COLUMNS, shown)
    else:
        print_parts(found, "differences", _DRIFT_COLUMNS, shown)


def _act(ctx: typer.Context, action: str, nodes: list[str], output: Output) -> None:
    session, tally = session_of(ctx), Tally()
    with session.api() as api:
        changed = change_each(api, nodes, lambda name: api.change("POST", path_of("nodes", name, action)), None, tally)
    print_several([reply.body for reply, _ in changed if reply.body], _COLUMNS, output or session.output)
    tally.end()
