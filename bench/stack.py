"""The stack that is measured: its own directory, and the network namespace that this process is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Endpoint
from terrace.stack import process_record
from terrace.stack.control import Control
from terrace.stack.settings import StackSettings
from terrace.stack.start import Options, up
from terrace.stack.stop import down

CHECKOUT = Path(__file__).resolve().parent.parent
# room for far more than 10,000 VMs of the smallest size on two nodes that only pretend to run them
_BIG_NODES = {
    "TERRACE_NODE_CPU": "4096",
    "TERRACE_NODE_RAM_MIB": "16777216",
    "TERRACE_NODE_DISK_GIB": "100000",
}


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    settings: StackSettings
    endpoint: Endpoint

    def roots(self) -> dict[int, str]:
        """Main process of each member, and of the supervisor."""
        members = Control(self.settings.layout.control_socket).status()
        roots = {member.pid: member.name for member in members if member.pid is not None}
        roots[process_record.living(self.settings.layout.pids)["supervisor"].pid] = "supervisor"
        return roots


@contextmanager
def started(var: Path, profile: str, image: Path | None = None, *, storage: str = "dir") -> Iterator[Stack]:
    """A stack under ``var`` that is gone, with its data, when the block ends. Raises StackError."""
    environment = {
        "TERRACE_VAR": str(var),
        "TERRACE_PROFILE": profile,
        "TERRACE_STORAGE": storage,
        "TERRACE_CEPH_STORE": "memstore",
        "TERRACE_DNS": "192.0.2.53",
    }
    if profile == "test":
        environment |= _BIG_NODES
    settings = StackSettings.load(CHECKOUT, environment)
    try:
        api = up(settings, Options(image=image, first_vm=False))
        yield Stack(settings, Endpoint("127.0.0.1", settings.ports.public, api.token))
    finally:
        down(settings, purge=True)
