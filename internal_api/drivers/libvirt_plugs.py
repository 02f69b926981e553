"""Disks in a domain's definition and in its running guest. All functions block."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, tostring

import libvirt

from internal_api.domain_xml import XMLNS, disk_xml
from internal_api.drivers.protocols import DomainDisk
from terrace.errors import Permanent

ElementTree.register_namespace("terrace", XMLNS)


def target_of(slot: int) -> str:
    """The name of a slot's device in the domain."""
    return f"vd{chr(ord('a') + slot)}"


def find_disk(handle: Any, target: str, *, live: bool) -> Element | None:
    """The ``<disk>`` of the running guest, or that of the definition."""
    return _find(_read(handle, live=live), target)


def find_alias(handle: Any, target: str) -> str | None:
    """What QEMU calls the disk's device; None when the domain is not alive or lacks it."""
    disk = find_disk(handle, target, live=True) if handle.isActive() else None
    alias = None if disk is None else disk.find("alias")
    return None if alias is None else alias.get("name")


def plug(handle: Any, disk: DomainDisk) -> None:
    """Into the definition, and into the guest when there is one."""
    if not _has(handle, disk, live=False):
        handle.attachDeviceFlags(disk_xml(disk), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    try:
        if handle.isActive() and not _has(handle, disk, live=True):
            handle.attachDeviceFlags(disk_xml(disk), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError:
        if handle.isActive():  # else it was powered off meanwhile and finds the disk at its next start
            raise


def unplug(handle: Any, target: str, *, ask: bool) -> str | None:
    """Out of the definition once no guest has it, then None; else why the guest still has it.

    ``ask``: ask the guest to let it go (it does so later, or never).
    """
    alias = find_alias(handle, target)
    if alias is not None:
        try:
            if ask:
                handle.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:  # a request is under way, perhaps, or has just succeeded
            return str(error)
        return "the guest does not answer"
    disk = find_disk(handle, target, live=False)
    if disk is not None:
        handle.detachDeviceFlags(tostring(disk, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    return None


def grow(handle: Any, target: str, size_bytes: int) -> bool:
    """False when no guest has it."""
    if find_alias(handle, target) is None:
        return False
    try:
        if handle.blockInfo(target)[0] < size_bytes:
            handle.blockResize(target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    except libvirt.libvirtError:
        if find_alias(handle, target) is not None:
            raise
        return False
    return True


def plug_in_definition(handle: Any, disk: DomainDisk) -> None:
    """For libvirt's test driver, which has no such calls."""
    if not _has(handle, disk, live=False):
        root = _read(handle, live=False)
        _devices(root).append(ElementTree.fromstring(disk_xml(disk)))  # noqa: S314 - our own
        handle.connect().defineXML(tostring(root, encoding="unicode"))


def unplug_in_definition(handle: Any, target: str) -> None:
    """For libvirt's test driver."""
    root = _read(handle, live=False)
    disk = _find(root, target)
    if disk is not None:
        _devices(root).remove(disk)
        handle.connect().defineXML(tostring(root, encoding="unicode"))


def _has(handle: Any, disk: DomainDisk, *, live: bool) -> bool:
    found = find_disk(handle, disk.target, live=live)
    if found is None:
        return False
    source = found.find("source")
    # a monitor's address may have changed, so only what is on the disk counts
    if source is None or disk.source.path not in (source.get("file"), source.get("name")):
        raise Permanent(
            "operation_failed", "Another disk has the VM's slot.", internal=f"{disk.target} is not {disk.source.path}"
        )
    return True


def _read(handle: Any, *, live: bool) -> Element:
    return ElementTree.fromstring(handle.XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE))  # noqa: S314 - libvirtd is trusted


def _devices(root: Element) -> Element:
    devices = root.find("devices")
    assert devices is not None
    return devices


def _find(root: Element, target: str) -> Element | None:
    for disk in root.iterfind("devices/disk"):
        found = disk.find("target")
        if found is not None and found.get("dev") == target:
            return disk
    return None
