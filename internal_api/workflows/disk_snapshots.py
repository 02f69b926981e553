"""Taking and removing a snapshot of several disks of a VM at one moment, whether it runs or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainState
from internal_api.host import data_volume_name, volume_name
from terrace.store.vms import Vm
from terrace.types import VolumeId

if TYPE_CHECKING:
    from internal_api.host import Host

ROOT_SLOT: Final = 0
SEED_SLOT: Final = 1
_FREEZE_TIMEOUT_S: Final = 10.0
_THAW_TIMEOUT_S: Final = 10.0
_ALIVE: Final = (DomainState.RUNNING, DomainState.PAUSED)

Disks = Mapping[int, str]  # slot → name in the pool


def all_disks(vm: Vm) -> Disks:
    """Every writable disk of a VM."""
    return {ROOT_SLOT: volume_name(vm), **{volume.slot: data_volume_name(volume.uuid) for volume in vm.volumes}}


def disks_of(vm: Vm, wanted: Mapping[VolumeId | None, int]) -> Disks:
    """Those of a VM's disks that a snapshot speaks of (by volume; None is the system disk)."""
    slots = {volume.slot for volume in vm.volumes if volume.id in wanted} | ({ROOT_SLOT} if None in wanted else set())
    return {slot: name for slot, name in all_disks(vm).items() if slot in slots}


async def take(host: Host, vm: Vm, disks: Disks, snapshot: str) -> str:
    """Take it of all disks; says what it can be trusted for: ``filesystem`` or ``crash``.

    What an earlier attempt has left of it is removed first: it was taken at another moment.
    """
    hypervisor = host.hypervisor
    state = await hypervisor.find_state(vm.uuid)
    running = state is DomainState.RUNNING
    await _thaw(host, vm)  # whoever took a snapshot and died may have left the guest frozen
    await host.storage.check_room()  # freezing writes, and a guest that can't write hangs
    await remove(host, vm, disks, snapshot)
    frozen = running and await hypervisor.freeze(vm.uuid, _FREEZE_TIMEOUT_S)
    try:
        if not await _is_live_elsewhere(host, vm) or not await hypervisor.snapshot_disks(
            vm.uuid, list(disks), snapshot
        ):
            for name in disks.values():
                await host.storage.ensure_snapshot(name, snapshot)
    finally:
        if frozen:
            await hypervisor.thaw(vm.uuid, _THAW_TIMEOUT_S)
    was_shut_down = state not in (*_ALIVE, DomainState.CRASHED) and vm.status != "crashed"
    return "filesystem" if frozen or was_shut_down else "crash"


async def undo_take(host: Host, vm: Vm, disks: Disks, snapshot: str) -> None:
    """Leave neither a part of it nor a frozen guest behind."""
    await _thaw(host, vm)
    await remove(host, vm, disks, snapshot)


async def _thaw(host: Host, vm: Vm) -> None:
    if await host.hypervisor.find_state(vm.uuid) is DomainState.RUNNING:
        await host.hypervisor.thaw(vm.uuid, _THAW_TIMEOUT_S)


async def remove(host: Host, vm: Vm, disks: Disks, snapshot: str) -> None:
    """Remove it from all disks, as far as they have it."""
    if await _is_live_elsewhere(host, vm) and await host.hypervisor.remove_disk_snapshots(
        vm.uuid, list(disks), snapshot
    ):
        return
    for name in disks.values():
        await host.storage.remove_snapshot(name, snapshot)


async def _is_live_elsewhere(host: Host, vm: Vm) -> bool:
    """Whether the running hypervisor, and not the storage, has to do it."""
    if host.storage.capabilities.live_snapshots:
        return False
    return await host.hypervisor.find_state(vm.uuid) in _ALIVE
