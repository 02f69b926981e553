from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import pytest
from golden_file import check_golden

from internal_api.domain_xml import SPARE_ROOT_PORTS, XMLNS, HostFacts, detect_domain_type, disk_xml, domain_xml
from internal_api.drivers.protocols import DiskSource, DomainDisk, DomainSpec, NicSpec
from terrace.types import MAX_VOLUMES

SPEC = DomainSpec(
    uuid=UUID("8a3a1f1e-0000-4000-8000-000000000001"),
    vm_id=7,
    name="test-1",
    cpu=2,
    ram_mib=1024,
    disks=(
        DomainDisk(DiskSource("file", "/pool/volumes/vm-7.qcow2", "qcow2"), 0, "disk-0"),
        DomainDisk(
            DiskSource("file", "/pool/blobs/vm-7-seed.iso", "raw", cache="writeback", readonly=True), 1, "disk-1"
        ),
    ),
    nics=(NicSpec("52:54:00:aa:bb:cc", "terrace0", "tt8a3a1f1e0000"),),
)
VOLUMES = tuple(
    DomainDisk(DiskSource("file", f"/pool/volumes/{slot}", "qcow2"), slot, f"volume-{slot}") for slot in (2, 5)
)
RBD = DiskSource(
    "network",
    "libvirt-pool/vm-7",
    "raw",
    hosts=(("10.0.0.1", 6789), ("10.0.0.2", 6789)),
    secret_uuid="8a3a1f1e-0000-4000-8000-00000000000f",
    username="terrace",
    cache="writeback",
)
LOGS = Path("/var/log/terrace")


@pytest.mark.parametrize("domain_type", ["qemu", "kvm", "test"])
def test_golden(domain_type: str) -> None:
    host = HostFacts(domain_type, console_log_dir=LOGS)  # type: ignore[arg-type]
    check_golden(f"domain-{domain_type}.xml", domain_xml(SPEC, host))


def test_rbd_disks() -> None:
    seed = replace(RBD, path="libvirt-pool/vm-7-seed", readonly=True)
    disks = (DomainDisk(RBD, 0, "disk-0"), DomainDisk(seed, 1, "disk-1"))
    check_golden("domain-rbd.xml", domain_xml(replace(SPEC, disks=disks), HostFacts("qemu")))


def test_volumes_keep_their_slots() -> None:
    check_golden("domain-volumes.xml", domain_xml(replace(SPEC, disks=SPEC.disks + VOLUMES), HostFacts("qemu")))


def test_a_disk_alone_is_the_one_of_the_domain() -> None:
    disk = DomainDisk(RBD, 3, "volume-12")
    alone = ElementTree.fromstring(disk_xml(disk))
    within = ElementTree.fromstring(domain_xml(replace(SPEC, disks=(disk,)), HostFacts("qemu"))).find("devices/disk")
    assert within is not None
    ElementTree.indent(within)
    ElementTree.indent(alone)
    within.tail = None
    assert ElementTree.tostring(within) == ElementTree.tostring(alone)


def test_a_serial_that_would_be_cut_is_refused() -> None:
    disk_xml(DomainDisk(RBD, 2, "v" * 20))
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        disk_xml(DomainDisk(RBD, 2, "v" * 21))


def test_everything_is_escaped() -> None:
    nasty = "<&>'\"\n]]>"
    spec = replace(
        SPEC,
        name=nasty,
        disks=(DomainDisk(DiskSource("file", f"/pool/{nasty}", "qcow2"), 0, "disk-0"),),
        nics=(replace(SPEC.nics[0], bridge=nasty),),
    )
    root = ElementTree.fromstring(domain_xml(spec, HostFacts("qemu")))
    assert root.findtext("title") == nasty
    disk, interface = root.find("devices/disk/source"), root.find("devices/interface/source")
    assert disk is not None and disk.get("file") == f"/pool/{nasty}"
    assert interface is not None and interface.get("bridge") == nasty


def test_metadata_makes_it_ours() -> None:
    root = ElementTree.fromstring(domain_xml(SPEC, HostFacts("test")))
    ours = root.find(f"metadata/{{{XMLNS}}}vm")
    assert ours is not None and ours.get("id") == "7"


@pytest.mark.parametrize("volumes", [(), VOLUMES])
def test_ports_are_left_for_all_volumes(volumes: tuple[DomainDisk, ...]) -> None:
    root = ElementTree.fromstring(domain_xml(replace(SPEC, disks=SPEC.disks + volumes), HostFacts("qemu")))
    ports = root.findall("devices/controller[@model='pcie-root-port']")
    fixed = len(SPEC.disks) + len(SPEC.nics) + 3
    assert len(ports) == fixed + MAX_VOLUMES + SPARE_ROOT_PORTS


def test_no_console_log_without_a_folder() -> None:
    assert "<log" not in domain_xml(SPEC, HostFacts("qemu"))


@pytest.mark.parametrize(
    ("cpuinfo", "device", "expected"),
    [
        ("flags\t\t: fpu vmx sse\n", True, "kvm"),
        ("flags\t\t: fpu svm sse\n", True, "kvm"),
        ("flags\t\t: fpu vmx sse\n", False, "qemu"),
        ("flags\t\t: fpu sse\n", True, "qemu"),
        ("model name\t: vmx machine\nflags\t\t: fpu\n", True, "qemu"),
        (None, True, "qemu"),
    ],
)
def test_kvm_needs_the_flag_and_the_device(tmp_path: Path, cpuinfo: str | None, device: bool, expected: str) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    if device:
        (tmp_path / "kvm").touch()
    assert detect_domain_type(tmp_path / "cpuinfo", tmp_path / "kvm") == expected
