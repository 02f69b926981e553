"""Disks for domains, and who has them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import libvirt

from internal_api.drivers.fake import FakeHypervisor
from internal_api.drivers.protocols import DiskSource, DomainDisk, Hypervisor

MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Plugged:
    """Looks behind a driver's back: which slots have which file."""

    hypervisor: Hypervisor
    uri: str  # libvirt's; unused for the fake

    async def defined(self, domain: UUID) -> dict[int, str]:
        return await self._look(domain, live=False)

    async def live(self, domain: UUID) -> dict[int, str]:
        return await self._look(domain, live=True)

    async def _look(self, domain: UUID, *, live: bool) -> dict[int, str]:
        if isinstance(self.hypervisor, FakeHypervisor):
            return {slot: disk.path for slot, disk in self.hypervisor.disks_of(domain, live=live).items()}
        return await asyncio.to_thread(_slots, self.uri, domain, live=live)


def _slots(uri: str, domain: UUID, *, live: bool) -> dict[int, str]:
    connection = libvirt.open(uri)
    try:
        handle = connection.lookupByUUID(domain.bytes)
        root = ElementTree.fromstring(handle.XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE))
        found = {}
        for disk in root.iterfind("devices/disk"):
            target, source = disk.find("target"), disk.find("source")
            assert target is not None and source is not None
            found[ord(target.get("dev", "")[2]) - ord("a")] = source.get("file") or source.get("name") or ""
        return found
    finally:
        connection.close()


def make_disk(folder: Path, slot: int, *, mib: int = 8) -> DomainDisk:
    """A new, empty volume."""
    path = folder / f"disk-{slot}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{mib}M"], check=True)
    return DomainDisk(DiskSource("file", str(path), "qcow2"), slot, f"volume-{slot}")


def inspect(path: str) -> dict[str, Any]:
    """What ``qemu-img info`` says; also while a guest has the image open."""
    command = ["qemu-img", "info", "-U", "--output=json", path]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def snapshots_in(path: str) -> list[str]:
    return [one["name"] for one in inspect(path).get("snapshots", [])]
