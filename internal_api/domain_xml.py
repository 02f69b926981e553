"""A domain's XML, as libvirt's QEMU and test drivers take it (https://libvirt.org/formatdomain.html)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from internal_api.drivers.protocols import DomainDisk, DomainSpec, NicSpec
from terrace.types import MAX_VOLUMES

# The metadata element that makes a domain ours.
XMLNS = "https://terrace.cloud/xmlns/1"
# On q35 a device can be plugged into a running guest only where a root port is free: these are, even when
# all volumes that a VM may have are plugged in.
SPARE_ROOT_PORTS = 2
FIRST_VOLUME_SLOT = 2
SERIAL_BYTES = 20  # as many as virtio's disks have
# TCG's cache of translated code is 1 GiB by default and fills with time.
TCG_CACHE_MIB = 32

DomainType = Literal["kvm", "qemu", "test"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the XML takes from the host rather than from the VM."""

    domain_type: DomainType
    emulator: str = "/usr/bin/qemu-system-x86_64"
    arch: str = "x86_64"
    machine: str = "q35"
    console_log_dir: Path | None = None  # None: consoles are not logged


def detect_domain_type(cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")) -> DomainType:
    """``kvm`` when the processor says that it can and the device opens; else ``qemu``, which emulates.

    Neither is enough alone: a container may show a device whose guests hang.
    """
    try:
        flags = re.search(r"^(flags|Features)\s*:.*\b(vmx|svm)\b", cpuinfo.read_text(), re.MULTILINE)
        usable = flags is not None and os.access(kvm, os.R_OK | os.W_OK)
    except OSError:
        usable = False
    return "kvm" if usable else "qemu"


def domain_xml(spec: DomainSpec, host: HostFacts) -> str:
    """The persistent definition of the domain."""
    domain = Element("domain", type=host.domain_type)
    _text(domain, "name", spec.domain_name)
    _text(domain, "uuid", str(spec.uuid))
    _text(domain, "title", spec.name)
    metadata = SubElement(domain, "metadata")
    SubElement(metadata, "terrace:vm", {"xmlns:terrace": XMLNS, "id": str(spec.vm_id)})
    _text(domain, "memory", str(spec.ram_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.cpu), placement="static")
    system = SubElement(domain, "os")
    if host.domain_type == "test":
        _text(system, "type", "hvm", arch=host.arch)
    else:
        _text(system, "type", "hvm", arch=host.arch, machine=host.machine)
        SubElement(system, "boot", dev="hd")
        _processor(domain, host)
    SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    devices = SubElement(domain, "devices")
    if host.domain_type != "test":
        _text(devices, "emulator", host.emulator)
        _controllers(devices, spec)
    for disk in spec.disks:
        devices.append(_disk(disk))
    for nic in spec.nics:
        _nic(devices, nic)
    if host.domain_type != "test":
        _console(devices, spec, host)
        _platform_devices(devices)
    indent(domain)
    return tostring(domain, encoding="unicode") + "\n"


def disk_xml(disk: DomainDisk) -> str:
    """The ``<disk>`` alone, as it is plugged in later."""
    return tostring(_disk(disk), encoding="unicode")


def count_root_ports(spec: DomainSpec) -> int:
    """The same however many volumes the domain has right now."""
    fixed_disks = sum(disk.slot < FIRST_VOLUME_SLOT for disk in spec.disks)
    platform = 3  # virtio-serial, rng, balloon
    return fixed_disks + len(spec.nics) + platform + MAX_VOLUMES + SPARE_ROOT_PORTS


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


def _processor(domain: Element, host: HostFacts) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if host.domain_type == "kvm":
        SubElement(domain, "cpu", mode="host-passthrough", check="none", migratable="on")
    else:
        tcg = SubElement(features, "tcg")
        _text(tcg, "tb-cache", str(TCG_CACHE_MIB), unit="MiB")
        SubElement(domain, "cpu", mode="maximum", check="none", migratable="on")


def _controllers(devices: Element, spec: DomainSpec) -> None:
    # A USB controller would cost start time and nothing here uses it.
    SubElement(devices, "controller", type="usb", model="none")
    SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for index in range(count_root_ports(spec)):
        SubElement(devices, "controller", type="pci", index=str(index + 1), model="pcie-root-port")


def _disk(disk: DomainDisk) -> Element:
    source, serial = disk.source, disk.serial
    if len(serial.encode()) > SERIAL_BYTES:
        raise ValueError(f"the disk's serial {serial!r} is longer than {SERIAL_BYTES} bytes")
    element = Element("disk", type=source.kind, device="disk")
    driver = SubElement(element, "driver", name="qemu", type=source.format, cache=source.cache)
    if not source.readonly:
        driver.set("discard", "unmap")
        # A guest that waits loses nothing when its storage fails, is full or is fenced off (reads count,
        # too: a file system that meets an error is read-only until the next boot).
        driver.set("error_policy", "stop")
        driver.set("rerror_policy", "stop")
    if source.kind == "network":
        network = SubElement(element, "source", protocol="rbd", name=source.path)
        for host, port in source.hosts:
            SubElement(network, "host", name=host, port=str(port))
        if source.username and source.secret_uuid:
            auth = SubElement(network, "auth", username=source.username)
            SubElement(auth, "secret", type="ceph", uuid=source.secret_uuid)
    else:
        SubElement(element, "source", file=source.path)
    SubElement(element, "target", dev=disk.target, bus="virtio")
    _text(element, "serial", serial)
    if source.readonly:
        SubElement(element, "readonly")
    return element


def _nic(devices: Element, nic: NicSpec) -> None:
    element = SubElement(devices, "interface", type="bridge")
    SubElement(element, "mac", address=nic.mac)
    SubElement(element, "source", bridge=nic.bridge)
    SubElement(element, "target", dev=nic.tap)
    SubElement(element, "model", type="virtio")
    if nic.mtu is not None:
        SubElement(element, "mtu", size=str(nic.mtu))
    # Guests boot from their disk: no PXE firmware to load.
    SubElement(element, "rom", enabled="no")


def _console(devices: Element, spec: DomainSpec, host: HostFacts) -> None:
    serial = SubElement(devices, "serial", type="pty")
    if host.console_log_dir is not None:
        SubElement(serial, "log", file=str(host.console_log_dir / f"{spec.domain_name}.log"), append="on")
    SubElement(serial, "target", port="0")
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="serial", port="0")


def _platform_devices(devices: Element) -> None:
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    graphics = SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
    SubElement(graphics, "listen", type="address", address="127.0.0.1")
    video = SubElement(devices, "video")
    SubElement(video, "model", type="vga")
    SubElement(devices, "memballoon", model="virtio")
    rng = SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
