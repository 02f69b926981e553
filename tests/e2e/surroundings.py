"""What stands beside the stack in the test run's network: the outside world, and an office's LAN."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from polling import until

from terrace.stack import commands

HERE, THERE = "198.51.100.1", "198.51.100.2"
OUTSIDE_NAME = "outside.test"
OFFICE = "office0"
# our children go with us, however we go
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def ip(*words: str) -> None:
    """ip(8) in the network namespace of the test run."""
    commands.run("ip", *words)


class Servers:
    """Processes that end together; each writes to a log of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*DIES_WITH_US, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
            )
        self._running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        for process in reversed(self._running):
            process.kill()
            process.wait()


class Outside(Servers):
    """Another network namespace: a name server, and a web server on port 80 that says who asks.

    It knows no way back to the guests: only translated addresses get an answer.
    """

    def start_all(self) -> None:
        holder = self.start("holder", ["unshare", "--net", "sleep", "infinity"])
        mine = Path("/proc/self/ns/net").stat()
        until(lambda: not os.path.samestat(Path(f"/proc/{holder.pid}/ns/net").stat(), mine), "a namespace", 5)
        inside = ["nsenter", "-t", str(holder.pid), "--net", "--"]
        ip("link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", str(holder.pid))
        ip("addr", "add", f"{HERE}/24", "dev", "wan0")
        ip("link", "set", "wan0", "up")
        commands.run(*inside, "ip", "addr", "add", f"{THERE}/24", "dev", "wan1")
        commands.run(*inside, "ip", "link", "set", "wan1", "up")
        (self.folder / "hello").write_text("the outside world\n")
        dns = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]
        dns += [
            "--user=root",
            "--bind-interfaces",
            f"--listen-address={THERE}",
            f"--host-record={OUTSIDE_NAME},{THERE}",
        ]
        dns += [f"--local=/{OUTSIDE_NAME}/"]
        self.start("dns", [*inside, *dns])
        self.start("web", [*inside, sys.executable, "-m", "http.server", "--bind", THERE, "80"])


class OfficeDhcp(Servers):
    """A bridge that is not Terrace's, with somebody else's DHCP server on it."""

    def start_all(self) -> None:
        ip("link", "add", OFFICE, "type", "bridge", "forward_delay", "0", "stp_state", "0")
        ip("addr", "add", "10.99.0.1/24", "dev", OFFICE)
        ip("link", "set", OFFICE, "up")
        self._leases = self.folder / "leases"
        self._leases.touch()
        script = self.folder / "on-lease"
        script.write_text(f'#!/bin/sh\necho "$1 $2 $3 $(date +%s.%N)" >>{self._leases}\n')
        script.chmod(0o755)
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=", "--user=root"]
        command += ["--bind-interfaces", f"--interface={OFFICE}", "--dhcp-range=10.99.0.100,10.99.0.200,5m"]
        command += ["--dhcp-authoritative", f"--dhcp-leasefile={self.folder}/known", f"--dhcp-script={script}"]
        self.server = self.start("dhcp", command)

    def leased_at(self, address: str) -> float:
        """The moment (epoch, seconds) when an address was first given."""

        def look() -> list[float]:
            lines = [line.split() for line in self._leases.read_text().splitlines()]
            return [float(at) for verb, _, given, at in lines if given == address and verb != "del"]

        # dnsmasq tells it after the acknowledgement, so it may be known elsewhere before
        return min(until(look, f"a lease of {address}", 5))

    def stop(self) -> None:
        super().stop()
        ip("link", "del", OFFICE)
