"""The least that a real guest needs: its disk, its definition, its start, by the tools of QEMU and libvirt."""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.stack import Stack
from internal_api import cloudinit, seed
from internal_api.domain_xml import HostFacts, detect_domain_type, domain_xml
from internal_api.drivers.protocols import DiskSource, DomainDisk, DomainSpec, NicSpec
from internal_api.drivers.tap import tap_name
from terrace.stack import hypervisor

NODE = "hv1"
CPU, RAM_MIB, DISK_GIB = 1, 256, 2
_FIRST_ID = 1_000_000  # of domains that no row of the database knows


class Disks(Protocol):
    """Where the disks of one guest lie."""

    @property
    def root(self) -> DiskSource: ...

    @property
    def seed(self) -> DiskSource: ...

    def write_seed(self, content: bytes) -> None:
        """Beforehand."""
        ...

    def make(self) -> None:
        """The system disk, from its image."""
        ...

    def remove(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileDisks:
    """Files, as a pool of kind ``dir`` has them."""

    image: Path
    directory: Path
    domain: uuid.UUID

    @property
    def root(self) -> DiskSource:
        return DiskSource("file", str(self.directory / f"{self.domain}.qcow2"), "qcow2", cache="none")

    @property
    def seed(self) -> DiskSource:
        path = str(self.directory / f"{self.domain}.seed")
        return DiskSource("file", path, "raw", cache="writeback", readonly=True)

    def write_seed(self, content: bytes) -> None:
        Path(self.seed.path).write_bytes(content)

    def make(self) -> None:
        options = ("-q", "-f", "qcow2", "-b", str(self.image), "-F", "qcow2")
        run("qemu-img", "create", *options, self.root.path, f"{DISK_GIB}G")

    def remove(self) -> None:
        Path(self.root.path).unlink()


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest of the same kind as a VM of Terrace's, whose seed and XML lie ready."""

    stack: Stack
    spec: DomainSpec
    disks: Disks
    xml: Path
    ip: str

    def start(self) -> None:
        """Disk, definition, start."""
        self.disks.make()
        self._virsh("define", str(self.xml))
        self._virsh("start", self.spec.domain_name)

    def remove(self) -> None:
        """Power off and forget."""
        self._virsh("destroy", self.spec.domain_name)
        self._virsh("undefine", self.spec.domain_name)
        self.disks.remove()

    def _virsh(self, *words: str) -> None:
        run("virsh", "--quiet", "--connect", hypervisor.uri(self.stack.settings.layout, NODE), *words)


def file_disks(stack: Stack, domain: uuid.UUID) -> FileDisks:
    """Beside the stack's own image."""
    (image,) = (stack.settings.layout.node(NODE) / "pool" / "images").iterdir()
    return FileDisks(image, stack.settings.var / "floor", domain)


def prepare(stack: Stack, number: int, public_key: str, domain: uuid.UUID, disks: Disks) -> Guest:
    """Guest ``number`` (from 1): everything that can be made beforehand is."""
    layout, subnet = stack.settings.layout, stack.settings.subnet
    ip = str(subnet[-1 - number])  # Terrace gives out the lowest first
    mac = f"02:00:00:00:00:{number:02x}"
    xml = stack.settings.var / "floor" / f"{domain}.xml"
    xml.parent.mkdir(exist_ok=True)
    address = cloudinit.StaticAddress(ip=ip, prefix_length=subnet.prefixlen, gateway=str(subnet[1]))
    config = cloudinit.GuestConfig(str(domain), f"floor-{number}", mac, address, ssh_keys=(public_key,))
    disks.write_seed(seed.build(config))
    spec = DomainSpec(
        uuid=domain,
        vm_id=_FIRST_ID + number,
        name=f"floor-{number}",
        cpu=CPU,
        ram_mib=RAM_MIB,
        disks=(DomainDisk(disks.root, 0, "disk-0"), DomainDisk(disks.seed, 1, "disk-1")),
        nics=(NicSpec(mac=mac, bridge=stack.settings.bridge, tap=tap_name(domain)),),
    )
    xml.write_text(domain_xml(spec, HostFacts(detect_domain_type(), console_log_dir=layout.node(NODE) / "console")))
    return Guest(stack, spec, disks, xml, ip)


def run(*command: str) -> None:
    """Run a command that succeeds, unseen."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
