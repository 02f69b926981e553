"""The disks of a domain of the fake hypervisor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internal_api.drivers.protocols import DomainDisk
from terrace.errors import Permanent


@dataclass(frozen=True, slots=True)
class FakeDisk:
    """What a test may ask about."""

    path: str
    size_bytes: int  # what it was grown to; 0 before that
    snapshots: tuple[str, ...]  # taken by the hypervisor


class FakeDisks:
    """Works on a domain's record: ``defined``, and ``live`` while there is a guest, both by slot."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    @staticmethod
    def define(disks: Iterable[DomainDisk]) -> dict[str, Any]:
        """The record's ``defined``."""
        return {str(disk.slot): {"path": disk.source.path} for disk in disks}

    def read(self, *, live: bool) -> Mapping[int, FakeDisk]:
        return {
            int(slot): FakeDisk(disk["path"], disk.get("size_bytes", 0), tuple(disk.get("snapshots", ())))
            for slot, disk in (self._live() if live else self._record["defined"]).items()
        }

    def start(self) -> None:
        self._record["live"] = {slot: dict(disk) for slot, disk in self._record["defined"].items()}

    def stop(self) -> None:
        self._record.pop("live", None)
        self._record.pop("frozen", None)

    def is_live(self, slot: int) -> bool:
        return str(slot) in self._live()

    def plug(self, disk: DomainDisk) -> None:
        for half in self._halves():
            found = half.setdefault(str(disk.slot), {"path": disk.source.path})
            if found["path"] != disk.source.path:
                raise Permanent("operation_failed", "Another disk has the VM's slot.")

    def unplug(self, slot: int) -> None:
        for half in self._halves():
            half.pop(str(slot), None)

    def grow(self, slot: int, size_bytes: int) -> bool:
        disk = self._live().get(str(slot))
        if disk is None:
            return False
        disk["size_bytes"] = max(size_bytes, disk.get("size_bytes", 0))
        return True

    def snapshot(self, slots: Sequence[int], name: str) -> bool:
        disks = self._open(slots)
        for disk in disks:
            disk["snapshots"] = [*(kept for kept in disk.get("snapshots", ()) if kept != name), name]
        return bool(disks)

    def remove_snapshots(self, slots: Sequence[int], name: str) -> bool:
        disks = self._open(slots)
        for disk in disks:
            disk["snapshots"] = [kept for kept in disk.get("snapshots", ()) if kept != name]
        return bool(disks)

    def _live(self) -> dict[str, Any]:
        live: dict[str, Any] = self._record.get("live", {})
        return live

    def _halves(self) -> list[dict[str, Any]]:
        return [self._record["defined"], *([self._record["live"]] if "live" in self._record else [])]

    def _open(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        live = self._live()
        found = [live[str(slot)] for slot in slots if str(slot) in live]
        if found and len(found) < len(slots):
            raise Permanent("operation_failed", "The VM has only some of the disks.")
        return found
