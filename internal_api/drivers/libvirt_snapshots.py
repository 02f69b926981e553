"""Snapshots inside the images of a running guest, by QEMU's own commands; libvirt's include the memory.

https://qemu-project.gitlab.io/qemu/interop/qemu-qmp-ref.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libvirt_qemu

from internal_api.drivers.libvirt_plugs import find_alias
from terrace.errors import Permanent, Transient


@dataclass(frozen=True, slots=True)
class _Image:
    node: str  # QEMU's name of the image
    snapshots: frozenset[str]


def take(handle: Any, targets: Sequence[str], snapshot: str) -> bool:
    """Of all disks at one moment, or of none; false when the domain has none of them open.

    What is there of that name was left by an attempt that its caller did not see succeed.
    """
    images = _find_images(handle, targets)
    if images is None:
        return False
    _remove_all(handle, images, snapshot)
    actions = [
        {"type": "blockdev-snapshot-internal-sync", "data": {"device": image.node, "name": snapshot}}
        for image in images
    ]
    # a transaction keeps the guest's writes back from its first image to its last
    _ask_qemu(handle, "transaction", actions=actions)
    return True


def remove(handle: Any, targets: Sequence[str], snapshot: str) -> bool:
    """False when the domain has none of the disks open."""
    images = _find_images(handle, targets)
    if images is None:
        return False
    _remove_all(handle, images, snapshot)
    return True


def _remove_all(handle: Any, images: Sequence[_Image], snapshot: str) -> None:
    for image in images:
        if snapshot in image.snapshots:
            _ask_qemu(handle, "blockdev-snapshot-delete-internal-sync", device=image.node, name=snapshot)


def _find_images(handle: Any, targets: Sequence[str]) -> list[_Image] | None:
    aliases = [alias for target in targets if (alias := find_alias(handle, target)) is not None]
    if not aliases:
        return None
    if len(aliases) < len(targets):
        raise Permanent("operation_failed", "The VM has only some of the disks.", internal=f"{targets}: {aliases}")
    by_alias = _list_images(handle)
    return [by_alias[alias] for alias in aliases]


def _list_images(handle: Any) -> dict[str, _Image]:
    """By the alias of the device that has the image open."""
    found = {}
    for device in _ask_qemu(handle, "query-block"):
        inserted = device.get("inserted")
        if inserted is None:
            continue
        snapshots = frozenset(one["name"] for one in inserted["image"].get("snapshots", ()))
        # the path of a device in QEMU's tree: /machine/peripheral/<alias>/virtio-backend
        for alias in device.get("qdev", "").split("/"):
            found[alias] = _Image(inserted["node-name"], snapshots)
    return found


def _ask_qemu(handle: Any, command: str, **arguments: object) -> Any:
    text = libvirt_qemu.qemuMonitorCommand(handle, json.dumps({"execute": command, "arguments": arguments}), 0)
    reply = json.loads(text)
    if "error" in reply:
        raise Transient(
            "hypervisor_unavailable", "The hypervisor failed.", internal=f"{command}: {reply['error'].get('desc')}"
        )
    return reply["return"]
