"""The least that a real guest needs: its disk, its definition, its start, by the tools of QEMU and libvirt."""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from bench.stack import Stack
from internal_api import cloudinit, seed
from internal_api.domain_xml import HostFacts, detect_domain_type, domain_xml
from internal_api.drivers.protocols import DiskSource, DomainSpec, NicSpec
from internal_api.drivers.tap import tap_name
from terrace.stack import hypervisor

_NODE = "hv1"
_FIRST_ID = 1_000_000  # of domains that no row of the database knows


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest of the same kind as a VM of Terrace's, whose seed and XML lie ready."""

    stack: Stack
    spec: DomainSpec
    image: Path
    disk: Path
    xml: Path
    ip: str

    def start(self) -> None:
        """Disk, definition, start."""
        size = f"{DISK_GIB}G"
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self.image), "-F", "qcow2", str(self.disk), size)
        self._virsh("define", str(self.xml))
        self._virsh("start", self.spec.domain_name)

    def remove(self) -> None:
        """Power off and forget."""
        self._virsh("destroy", self.spec.domain_name)
        self._virsh("undefine", self.spec.domain_name)
        self.disk.unlink()

    def _virsh(self, *words: str) -> None:
        _run("virsh", "--quiet", "--connect", hypervisor.uri(self.stack.settings.layout, _NODE), *words)


CPU, RAM_MIB, DISK_GIB = 1, 256, 2


def prepare(stack: Stack, number: int, public_key: str, directory: Path) -> Guest:
    """Guest ``number`` (from 1): everything that can be made beforehand is."""
    layout, subnet = stack.settings.layout, stack.settings.subnet
    ip = str(subnet[-1 - number])  # Terrace gives out the lowest first
    domain = uuid.uuid4()
    mac = f"02:00:00:00:00:{number:02x}"
    seed_file, disk, xml = (directory / f"{domain}.{kind}" for kind in ("seed", "qcow2", "xml"))
    address = cloudinit.StaticAddress(ip=ip, prefix_length=subnet.prefixlen, gateway=str(subnet[1]))
    config = cloudinit.GuestConfig(str(domain), f"floor-{number}", mac, address, ssh_keys=(public_key,))
    seed_file.write_bytes(seed.build(config))
    spec = DomainSpec(
        uuid=domain,
        vm_id=_FIRST_ID + number,
        name=f"floor-{number}",
        cpu=CPU,
        ram_mib=RAM_MIB,
        disks=(
            DiskSource("file", str(disk), "qcow2", cache="none"),
            DiskSource("file", str(seed_file), "raw", cache="writeback", readonly=True),
        ),
        nics=(NicSpec(mac=mac, bridge=stack.settings.bridge, tap=tap_name(domain)),),
    )
    xml.write_text(domain_xml(spec, HostFacts(detect_domain_type(), console_log_dir=layout.node(_NODE) / "console")))
    (image,) = (layout.node(_NODE) / "pool" / "images").iterdir()
    return Guest(stack, spec, image, disk, xml, ip)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
