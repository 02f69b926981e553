"""Whether a Ceph cluster's monitors listen, and whether others listen in their place."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from terrace.stack.ceph_settings import MON_PORTS, CephSettings
from terrace.stack.errors import StackError


def refuse_ports(settings: CephSettings, mons: Iterable[str]) -> None:
    """Raises StackError for the first address that another process holds. `mons`: those not running yet."""
    for name in mons:
        address = settings.address(name)
        for port in MON_PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        why = os.strerror(error.errno or 0)
                        raise StackError(f"Ceph's {name} can't have {address}:{port}: {why}.") from error
                    raise StackError(
                        f"{address}:{port}, which Ceph's {name} needs, is used by another process: is it another "
                        "cluster of the same TERRACE_PORT_BASE?"
                    ) from None


def listens(settings: CephSettings, mon: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((settings.address(mon), MON_PORTS[0])) == 0
