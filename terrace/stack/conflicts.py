"""What would collide with the machine, found before anything is started."""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import Any

from terrace.stack import commands, host_network
from terrace.stack.errors import StackError
from terrace.stack.member import Member
from terrace.stack.settings import StackSettings


def refuse_network(settings: StackSettings) -> None:
    """Raises StackError if the bridge is somebody else's or the subnet is already in use here."""
    host_network.refuse_foreign_bridge(settings)
    for interface, network in _networks():
        if interface != settings.bridge and network.prefixlen > 0 and network.overlaps(settings.subnet):
            raise StackError(
                f"The guests' subnet {settings.subnet} overlaps {network}, which this machine reaches "
                f"through {interface}: set TERRACE_SUBNET to a free network."
            )


def _networks() -> Iterable[tuple[str, ipaddress.IPv4Network]]:
    links: list[dict[str, Any]] = commands.run_json("ip", "-j", "-4", "addr")
    for link in links:
        for info in link.get("addr_info", []):
            yield link["ifname"], ipaddress.IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
    routes: list[dict[str, Any]] = commands.run_json("ip", "-j", "-4", "route")
    for route in routes:
        if route["dst"] != "default":
            yield route.get("dev", "another route"), ipaddress.IPv4Network(route["dst"], strict=False)


def refuse_ports(settings: StackSettings, members: Iterable[Member]) -> None:
    """Raises StackError for the first port that another process holds. `members`: those not running yet."""
    if _bind_error(settings.public_bind, 0) is not None:
        raise StackError(f"TERRACE_PUBLIC_BIND is {settings.public_bind}, which is not an address of this machine.")
    for member in members:
        for port in member.ports:
            address = settings.public_bind if port == settings.ports.public else "127.0.0.1"
            match _bind_error(address, port):
                case None:
                    continue
                case errno.EADDRINUSE:
                    raise StackError(
                        f"Port {port} on {address}, which {member.name} needs, is used by another process: "
                        "set TERRACE_PORT_BASE to another number (7800, say)."
                    )
                case number:
                    raise StackError(f"{member.name} can't have port {port} on {address}: {os.strerror(number)}.")


def _bind_error(address: str, port: int) -> int | None:
    with socket.socket() as probe:
        # as servers do: connections of the last run that linger must not matter
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno
    return None
