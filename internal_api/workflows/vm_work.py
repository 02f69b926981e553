"""The steps that several operations on a VM share, and what they work on."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from internal_api import cloudinit, seed
from internal_api.drivers.protocols import DomainDisk, DomainSpec
from internal_api.host import Host, data_volume_name, nic_of, seed_name, snapshot_name, volume_name
from terrace.engine.step import Run
from terrace.errors import NotFound
from terrace.store import snapshots, vms
from terrace.store.operations import Operation
from terrace.store.vms import Vm
from terrace.types import VolumeId


@dataclass(frozen=True, slots=True)
class VmWork:
    """A VM in the hands of its owner."""

    host: Host
    vm: Vm


def loader(host: Host) -> Callable[[Operation], Awaitable[VmWork]]:
    """Load an operation's VM."""

    async def load(op: Operation) -> VmWork:
        assert op.vm_id is not None
        vm = host.claimed.pop(op.vm_id, None)
        if vm is None:
            async with host.pool.acquire() as conn:
                vm = await vms.find(conn, op.vm_id)
        if vm is None:
            raise NotFound("VM", op.vm_id)
        host.vm_of_domain[vm.uuid] = vm.id
        return VmWork(host, vm)

    return load


def plugged_disk(host: Host, volume_id: VolumeId, uuid: UUID, slot: int) -> DomainDisk:
    """A data volume as a domain has it."""
    return DomainDisk(host.storage.volume_source(data_volume_name(uuid)), slot, f"volume-{volume_id}")


async def ensure_volumes(work: VmWork, _: Run) -> None:
    """The system disk, a linked clone of the image grown to its size; and empty disks that were asked for with it."""
    vm, storage = work.vm, work.host.storage
    await storage.ensure_volume(
        volume_name(vm), image_sha256=vm.image_sha256, image_format=vm.image_format, size_gib=vm.disk_gib
    )
    for volume in vm.volumes:
        if volume.status == "creating":
            await storage.ensure_empty_volume(data_volume_name(volume.uuid), size_gib=volume.size_gib)


async def remove_volumes(work: VmWork) -> None:
    """Remove the system disk and the volumes that go with it; volumes that stay lose the VM's snapshots."""
    host, vm = work.host, work.vm
    await host.storage.remove_volume(volume_name(vm))
    kept = []
    for volume in vm.volumes:
        name = data_volume_name(volume.uuid)
        if volume.delete_with_vm or volume.status == "creating":
            await host.storage.remove_volume(name)
        else:
            kept.append(name)
    if kept:
        async with host.pool.acquire() as conn:
            taken = await snapshots.list_of_vm(conn, vm.id)
        for snapshot in taken:
            for name in kept:
                await host.storage.remove_snapshot(name, snapshot_name(snapshot.uuid))


async def ensure_seed(work: VmWork, _: Run) -> None:
    """The NoCloud seed, from which the guest configures itself."""
    vm = work.vm
    address = None
    if vm.ip is not None and vm.cidr is not None and vm.gateway is not None:
        address = cloudinit.StaticAddress(
            ip=vm.ip,
            prefix_length=ipaddress.ip_network(vm.cidr).prefixlen,
            gateway=vm.gateway,
            dns=tuple(vm.dns),
        )
    config = cloudinit.GuestConfig(
        instance_id=str(vm.uuid),
        hostname=vm.name,
        mac=vm.mac,
        address=address if vm.dhcp == "terrace" else None,
        ssh_keys=tuple(vm.ssh_keys),
        password_hash=vm.password_hash,
        files=tuple(cloudinit.GuestFile(file["path"], file["content"], file["mode"]) for file in vm.files),
        user_data=vm.user_data,
    )
    await work.host.storage.ensure_blob(seed_name(vm), seed.build(config))


async def remove_seed(work: VmWork) -> None:
    """Remove the seed."""
    await work.host.storage.remove_blob(seed_name(work.vm))


async def ensure_filter(work: VmWork, _: Run) -> None:
    """Let only the VM's own addresses pass its tap."""
    await work.host.network.ensure_filter(nic_of(work.vm), work.vm.ip if work.vm.dhcp == "terrace" else None)


async def remove_filter(work: VmWork) -> None:
    """Forget the tap's filter."""
    await work.host.network.remove_filter(nic_of(work.vm))


async def ensure_domain(work: VmWork, _: Run) -> None:
    """Define the domain persistently."""
    vm, storage = work.vm, work.host.storage
    spec = DomainSpec(
        uuid=vm.uuid,
        vm_id=vm.id,
        name=vm.name,
        cpu=vm.cpu,
        ram_mib=vm.ram_mib,
        disks=(
            DomainDisk(storage.volume_source(volume_name(vm)), 0, "disk-0"),
            DomainDisk(storage.blob_source(seed_name(vm)), 1, "disk-1"),
            *(plugged_disk(work.host, volume.id, volume.uuid, volume.slot) for volume in vm.volumes),
        ),
        nics=(nic_of(vm),),
    )
    await work.host.hypervisor.ensure_defined(spec)


async def remove_domain(work: VmWork) -> None:
    """Power off and undefine the domain."""
    await work.host.hypervisor.remove(work.vm.uuid)


async def ensure_started(work: VmWork, _: Run) -> None:
    """Start the domain."""
    await work.host.hypervisor.ensure_started(work.vm.uuid)


async def ensure_stopped(work: VmWork) -> None:
    """Power the domain off at once."""
    await work.host.hypervisor.ensure_stopped(work.vm.uuid)


async def set_placement(work: VmWork, _: Run) -> None:
    """Remember in Redis who owns the VM."""
    await work.host.placement.set(work.vm.project_id, work.vm.id, work.vm.node)


async def remove_placement(work: VmWork) -> None:
    """Forget in Redis who owned the VM."""
    await work.host.placement.delete(work.vm.project_id, work.vm.id)
