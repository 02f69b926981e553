"""What the machine offers: capacity for the nodes, name servers for guests, its own address."""

import dataclasses
import ipaddress
import os
import shutil
from pathlib import Path
from typing import Any

from terrace.stack import commands
from terrace.stack.settings import StackSettings

# what the machine itself, the databases and the control plane need
RESERVED_RAM_MIB = 2048
PUBLIC_NAME_SERVERS = ("9.9.9.9", "1.1.1.1")
RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def with_capacity(settings: StackSettings) -> StackSettings:
    """Fills in the capacities that nobody chose: each node an equal share of memory and disk."""
    ram_mib = max(512, (_total_ram_mib() - RESERVED_RAM_MIB) // settings.nodes)
    disk_gib = None  # a pool that all share says itself how large it is
    if settings.storage == "dir":
        disk_gib = max(1, shutil.disk_usage(settings.var).free // 1024**3 // settings.nodes)
    return dataclasses.replace(
        settings,
        node_cpu=settings.node_cpu or len(os.sched_getaffinity(0)),
        node_ram_mib=settings.node_ram_mib or ram_mib,
        node_disk_gib=settings.node_disk_gib or disk_gib,
    )


def _total_ram_mib() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemTotal"].split()[0]) // 1024


def name_servers() -> tuple[str, ...]:
    """The machine's own IPv4 name servers, without local stubs, which guests can't reach."""
    found: list[str] = []
    for path in RESOLVER_FILES:
        lines = path.read_text().splitlines() if path.is_file() else []
        words = [line.split() for line in lines]
        found += [
            parts[1] for parts in words if len(parts) > 1 and parts[0] == "nameserver" and _is_reachable(parts[1])
        ]
    return tuple(dict.fromkeys(found))[:3] or PUBLIC_NAME_SERVERS


def _is_reachable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def main_address() -> str | None:
    """The address with which the machine speaks to the world, if it has a default route."""
    routes: list[dict[str, Any]] = commands.run_json("ip", "-j", "-4", "route", "show", "default")
    for route in routes:
        if "prefsrc" in route:
            return str(route["prefsrc"])
        links = commands.run_json("ip", "-j", "-4", "addr", "show", "dev", route["dev"])
        for address in (info for link in links for info in link["addr_info"]):
            return str(address["local"])
    return None
