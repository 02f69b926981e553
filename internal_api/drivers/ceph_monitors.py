"""Addresses of a cluster's monitors, as the domains' XML gives them to QEMU: host and port."""

from __future__ import annotations

import re
from typing import Any

LEGACY_PORT = 6789  # of the first messenger, which QEMU's librados has always known
_ADDRESS = r"{}:(\[[^\]]+\]|[^:,\[\]]+):(\d+)"


def monitors_of_map(monmap: Any) -> tuple[tuple[str, int], ...]:
    """From ``ceph mon dump``; the first messenger's address where a monitor has both."""
    found = []
    for monitor in monmap["mons"]:
        vector = sorted(monitor["public_addrs"]["addrvec"], key=lambda address: str(address["type"]))
        found.append(_split(str(vector[0]["addr"])))
    return tuple(sorted(found))


def monitors_of_conf(mon_host: str) -> tuple[tuple[str, int], ...]:
    """From the option ``mon_host``: ``10.0.0.1,10.0.0.2:6789`` or ``[v2:10.0.0.1:3300,v1:10.0.0.1:6789],…``."""
    for messenger in ("v1", "v2"):
        if found := re.findall(_ADDRESS.format(messenger), mon_host):
            return tuple(sorted((host.strip("[]"), int(port)) for host, port in found))
    return tuple(sorted(_split(address) for address in re.split("[,; ]+", mon_host) if address))


def _split(address: str) -> tuple[str, int]:
    """``1.2.3.4:6789/0`` or ``[::1]:6789/0`` or a name, with or without port."""
    address = address.split("/")[0]
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (host.count(":") and not host.startswith("[")):
        return address.strip("[]"), LEGACY_PORT
    return host.strip("[]"), int(port)
