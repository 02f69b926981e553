"""A whole stack with real guests, in the network of the test run; and what its world holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from public_client import Api

from terrace.stack import commands, hypervisor, postgres
from terrace.stack.control import Control
from terrace.stack.process_record import process_id
from terrace.stack.settings import StackSettings

CHECKOUT = Path(__file__).resolve().parents[2]
START_S = 120.0


class StackRun:
    """Started, looked at and ended by the project's own commands."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.settings = StackSettings.load(CHECKOUT, environ)
        self.layout = self.settings.layout
        self.control = Control(self.layout.control_socket)

    def command(self, *words: str, timeout_s: float = START_S) -> subprocess.CompletedProcess[str]:
        """`python -m terrace.stack`, whatever becomes of it."""
        return subprocess.run(
            [sys.executable, "-m", "terrace.stack", *words],
            env=commands.member_environment(PYTHONPATH=str(CHECKOUT), **self.environ),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def must(self, *words: str) -> str:
        done = self.command(*words)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def up(self, image: Path) -> Api:
        self.must("up", "--no-vm", "--image", str(image))
        return Api(f"http://127.0.0.1:{self.settings.ports.public}", self.layout.token_file.read_text().strip())

    def internal_of(self, node: str) -> str:
        """The name of the member that is this node's API."""
        return f"internal{self.settings.hypervisors.index(node) + 1}"

    def virsh(self, node: str, *words: str) -> str:
        return commands.run("virsh", "-q", "-c", hypervisor.uri(self.layout, node), *words).strip()

    def domains(self) -> dict[str, list[str]]:
        """Node → names of all its domains."""
        return {node: self.virsh(node, "list", "--all", "--name").split() for node in self.settings.hypervisors}

    def domain_uuid(self, vm: dict[str, Any]) -> str:
        return self.virsh(vm["node"], "domuuid", f"terrace-{vm['id']}")

    def qemu_pid(self, vm: dict[str, Any]) -> int:
        folder = self.layout.node(vm["node"]) / "run" / "libvirt" / "qemu"
        return int((folder / f"terrace-{vm['id']}.pid").read_text())

    def pool_files(self) -> list[str]:
        """Names of volumes and seeds in all pools."""
        pools = [self.layout.node(node) / "pool" for node in self.settings.hypervisors]
        return sorted(path.name for pool in pools for path in pool.rglob("*-*-*-*-*-*") if path.is_file())

    def filtered_taps(self) -> set[str]:
        listing = commands.run_json("nft", "-j", "list", "ruleset", "bridge")["nftables"]
        sets = [item["set"] for item in listing if item.get("set", {}).get("name") == "taps"]
        elements = [element for one in sets for element in one.get("elem", [])]
        return {str(element["elem"]["val"]) if isinstance(element, dict) else str(element) for element in elements}

    def taps(self) -> set[str]:
        links = commands.run_json("ip", "-j", "link")
        return {link["ifname"] for link in links if link["ifname"].startswith("tt")}

    def placements(self) -> set[int]:
        """Ids of the VMs that Redis knows."""
        command = ("redis-cli", "-p", str(self.settings.ports.redis), "--raw", "keys", "placement:*")
        password = (self.layout.secrets / "redis.password").read_text()
        keys = commands.run(*command, env={"REDISCLI_AUTH": password}).split()
        return {int(key.rpartition(":")[2]) for key in keys}

    def sql(self, query: str) -> list[Any]:
        """Rows as JSON values."""
        url = postgres.url(self.settings, postgres.OWNER)
        password = postgres.password_file(self.layout, postgres.OWNER).read_text().strip()
        text = f"select coalesce(json_agg(row), '[]') from ({query}) row"
        found: list[Any] = json.loads(commands.run("psql", "-XAtq", url, "-c", text, env={"PGPASSWORD": password}))
        return found

    def assert_consistent(self) -> None:
        """Whatever there is belongs to a VM, and what is claimed is what the VMs were promised."""
        vms = self.sql("select id, uuid, node, cpu, ram_mib, disk_gib, ip, pool_id from vms order by id")
        wanted: dict[str, list[str]] = {node: [] for node in self.settings.hypervisors}
        for vm in vms:
            wanted[vm["node"]].append(f"terrace-{vm['id']}")
        assert {node: sorted(names) for node, names in self.domains().items()} == {
            node: sorted(names) for node, names in wanted.items()
        }
        volumes = self.sql("select uuid, size_gib, pool_id from volumes where pool_id is not null")
        files = [f"{vm['uuid']}{part}" for vm in vms for part in ("-root", "-seed")]
        files += [f"{volume['uuid']}-data" for volume in volumes]
        assert sorted({Path(name).stem for name in self.pool_files()}) == sorted(files)
        taps = {f"tt{vm['uuid'].replace('-', '')[:12]}" for vm in vms}
        # a guest that is off need not have a filter: it gets one before its tap
        assert self.taps() <= self.filtered_taps() <= taps
        assert self.placements() == {vm["id"] for vm in vms}
        for node in self.sql("select name, cpu_claimed, ram_claimed_mib from nodes"):
            mine = [vm for vm in vms if vm["node"] == node["name"]]
            assert node["cpu_claimed"] == sum(vm["cpu"] for vm in mine), node
            assert node["ram_claimed_mib"] == sum(vm["ram_mib"] for vm in mine), node
        for pool in self.sql("select id, claimed_gib from pools"):
            disks = [vm["disk_gib"] for vm in vms if vm["pool_id"] == pool["id"]]
            disks += [volume["size_gib"] for volume in volumes if volume["pool_id"] == pool["id"]]
            assert pool["claimed_gib"] == sum(disks), pool
        held = self.sql("select vm_id, host(ip) as ip from addresses where vm_id is not null")
        assert {row["vm_id"] for row in held} <= {vm["id"] for vm in vms}


def processes_of(var: Path) -> list[str]:
    """Command lines of processes that belong to a stack: they name its directory, or live in its view."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid() or process_id(int(folder.name)) is None:
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (folder / "environ").read_bytes().decode(errors="replace")
            mounts = (folder / "mounts").read_text()
        except OSError:  # it has just ended
            continue
        if any(str(var) in text for text in (command, environ, mounts)):
            found.append(f"{folder.name}: {command}")
    return found
