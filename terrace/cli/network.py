"""``terrace network``: the networks that VMs can be on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from terrace.cli.cells import field
from terrace.cli.client import path_of
from terrace.cli.complete import network_names
from terrace.cli.failures import usage
from terrace.cli.options import Limit, Output, Yes
from terrace.cli.output import Column, print_list, print_one
from terrace.cli.session import session_of
from terrace.cli.several import delete_each

network_app = typer.Typer(no_args_is_help=True, help="Networks: bridges on the nodes, and their addresses.")

_COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("BRIDGE", field("bridge")),
    Column("DHCP", field("dhcp")),
    Column("SUBNET", field("subnet")),
    Column("GATEWAY", field("gateway")),
    Column("DNS", field("dns")),
)


class Dhcp(StrEnum):
    """Who gives addresses to guests."""

    TERRACE = "terrace"
    EXTERNAL = "external"


@network_app.command("list")
def list_networks(ctx: typer.Context, limit: Limit = None, output: Output = None) -> None:
    """List networks."""
    session = session_of(ctx)
    with session.api() as api:
        print_list(list(api.pages("/networks", [], limit)), _COLUMNS, output or session.output)


@network_app.command("show")
def show_network(
    ctx: typer.Context,
    network: Annotated[str, typer.Argument(help="Name or id.", autocompletion=network_names)],
    output: Output = None,
) -> None:
    """Show a network."""
    session = session_of(ctx)
    with session.api() as api:
        print_one(api.get(path_of("networks", network)), output or session.output)


@network_app.command("create")
def create_network(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name.")],
    bridge: Annotated[str, typer.Option(help="Bridge on every node, such as br0.")],
    subnet: Annotated[str | None, typer.Option(help="Addresses for guests, such as 10.78.0.0/16.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Router of the subnet.")] = None,
    dns: Annotated[list[str] | None, typer.Option(help="DNS server for guests; repeatable.")] = None,
    dhcp: Annotated[
        Dhcp,
        typer.Option(help="terrace gives addresses out of --subnet; external: a DHCP server that is there."),
    ] = Dhcp.TERRACE,
    output: Output = None,
) -> None:
    """Make a network of an existing bridge."""
    given = {"subnet": subnet, "gateway": gateway, "dns": dns or None}
    if dhcp is Dhcp.EXTERNAL and any(given.values()):
        raise usage("With --dhcp external, subnet, gateway and DNS are the other DHCP server's matter.")
    if dhcp is Dhcp.TERRACE and not subnet:
        raise usage("A network needs --subnet.", "Or --dhcp external, if another DHCP server serves the bridge.")
    body = {"name": name, "bridge": bridge, "dhcp": dhcp.value}
    session = session_of(ctx)
    with session.api() as api:
        reply = api.change(
            "POST", "/networks", {**body, **{key: value for key, value in given.items() if value is not None}}
        )
    print_one(reply.body, output or session.output)


@network_app.command("delete")
def delete_networks(
    ctx: typer.Context,
    network: Annotated[
        list[str], typer.Argument(metavar="NETWORK", help="Names or ids.", autocompletion=network_names)
    ],
    yes: Yes = False,
) -> None:
    """Delete networks that no VM is on. Their bridges stay."""
    delete_each(session_of(ctx), "network", network, ["networks"], yes)
