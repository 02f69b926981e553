"""What every hypervisor driver does with disks: the fake, libvirt's test driver and real QEMU.

None of these domains runs a system; guests that answer are in test_libvirt_guest.py.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from disks import MIB, Plugged, make_disk

from internal_api.drivers.fake import FakeHypervisor
from internal_api.drivers.protocols import (
    DiskSource,
    DomainDisk,
    DomainEventKind,
    DomainSpec,
    DomainState,
    Hypervisor,
    SharedPool,
)
from terrace.errors import Permanent, Transient


@pytest.fixture
def with_root(spec: DomainSpec, tmp_path: Path) -> DomainSpec:
    return replace(spec, disks=(make_disk(tmp_path, 0),))


async def test_disks_of_a_stopped_domain(
    hypervisor: Hypervisor, plugged: Plugged, with_root: DomainSpec, tmp_path: Path
) -> None:
    vm, disk = with_root.uuid, make_disk(tmp_path, 3)
    await hypervisor.ensure_defined(with_root)
    for _ in range(2):
        await hypervisor.attach_disk(vm, disk)
    assert set(await plugged.defined(vm)) == {0, 3}
    assert (await plugged.defined(vm))[3] == disk.source.path
    for _ in range(2):
        await hypervisor.detach_disk(vm, 3)
    assert set(await plugged.defined(vm)) == {0}
    assert await hypervisor.find_state(vm) is DomainState.STOPPED
    assert await hypervisor.ensure_started(vm)


async def test_disks_of_a_running_domain(
    hypervisor: Hypervisor, plugged: Plugged, with_root: DomainSpec, tmp_path: Path
) -> None:
    vm, disk = with_root.uuid, make_disk(tmp_path, 2)
    await hypervisor.ensure_defined(with_root)
    await hypervisor.ensure_started(vm)
    for _ in range(2):
        await hypervisor.attach_disk(vm, disk)
    assert set(await plugged.defined(vm)) == {0, 2}
    if hypervisor.boots_guests or isinstance(hypervisor, FakeHypervisor):
        assert set(await plugged.live(vm)) == {0, 2}
    await hypervisor.ensure_stopped(vm)
    await hypervisor.ensure_started(vm)
    assert set(await plugged.live(vm)) == {0, 2}
    await hypervisor.ensure_stopped(vm)
    await hypervisor.detach_disk(vm, 2)
    assert set(await plugged.defined(vm)) == {0}


async def test_each_half_of_an_attachment_is_made_good(
    hypervisor: Hypervisor, plugged: Plugged, with_root: DomainSpec, tmp_path: Path
) -> None:
    vm, disk = with_root.uuid, make_disk(tmp_path, 2)
    await hypervisor.ensure_defined(with_root)
    await hypervisor.ensure_started(vm)
    await hypervisor.ensure_defined(replace(with_root, disks=(*with_root.disks, disk)))  # the definition alone
    await hypervisor.attach_disk(vm, disk)
    if hypervisor.boots_guests or isinstance(hypervisor, FakeHypervisor):
        assert set(await plugged.live(vm)) == {0, 2}
        await hypervisor.ensure_defined(with_root)  # the guest alone
        await hypervisor.attach_disk(vm, disk)
    assert set(await plugged.defined(vm)) == {0, 2}


async def test_a_slot_has_one_disk(
    hypervisor: Hypervisor, plugged: Plugged, with_root: DomainSpec, tmp_path: Path
) -> None:
    first = make_disk(tmp_path, 2)
    other = DomainDisk(replace(first.source, path=f"{first.source.path}-other"), 2, "volume-9")
    await hypervisor.ensure_defined(replace(with_root, disks=(*with_root.disks, first)))
    with pytest.raises(Permanent):
        await hypervisor.attach_disk(with_root.uuid, other)
    assert (await plugged.defined(with_root.uuid))[2] == first.source.path


async def test_absent_domains_have_no_disks(hypervisor: Hypervisor, tmp_path: Path) -> None:
    nobody = uuid.uuid4()
    with pytest.raises(Permanent):
        await hypervisor.attach_disk(nobody, make_disk(tmp_path, 2))
    await hypervisor.detach_disk(nobody, 2)
    assert not await hypervisor.grow_disk(nobody, 2, MIB)
    assert not await hypervisor.freeze(nobody, 1.0)
    await hypervisor.thaw(nobody, 1.0)
    assert not await hypervisor.snapshot_disks(nobody, [0], "s-1")
    assert not await hypervisor.remove_disk_snapshots(nobody, [0], "s-1")


async def test_domains_just_removed_have_no_disks(hypervisor: Hypervisor, with_root: DomainSpec) -> None:
    vm = with_root.uuid
    await hypervisor.ensure_defined(with_root)
    await hypervisor.ensure_started(vm)
    await hypervisor.remove(vm)
    await hypervisor.detach_disk(vm, 0)
    await hypervisor.thaw(vm, 1.0)
    assert not await hypervisor.grow_disk(vm, 0, MIB)
    assert not await hypervisor.snapshot_disks(vm, [0], "s-1")
    with pytest.raises(Permanent):
        await hypervisor.attach_disk(vm, with_root.disks[0])


async def test_what_nobody_has_open_is_left_to_the_storage(hypervisor: Hypervisor, with_root: DomainSpec) -> None:
    vm = with_root.uuid
    await hypervisor.ensure_defined(with_root)
    assert not await hypervisor.grow_disk(vm, 0, 16 * MIB)
    assert not await hypervisor.snapshot_disks(vm, [0], "s-1")
    assert not await hypervisor.remove_disk_snapshots(vm, [0], "s-1")
    await hypervisor.ensure_started(vm)
    assert not await hypervisor.grow_disk(vm, 5, 16 * MIB)
    assert not await hypervisor.snapshot_disks(vm, [5], "s-1")


async def test_freezing_does_not_wait_for_an_agent_that_is_not_there(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    await hypervisor.ensure_defined(spec)
    assert not await hypervisor.freeze(spec.uuid, 1.0)
    await hypervisor.ensure_started(spec.uuid)
    began = time.monotonic()
    assert not await hypervisor.freeze(spec.uuid, 1.0)
    await hypervisor.thaw(spec.uuid, 1.0)
    assert time.monotonic() - began < 10
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING


async def test_many_volumes_at_a_time(
    hypervisor: Hypervisor, plugged: Plugged, with_root: DomainSpec, tmp_path: Path
) -> None:
    """As many as a VM may have, into a running one."""
    vm = with_root.uuid
    await hypervisor.ensure_defined(with_root)
    await hypervisor.ensure_started(vm)
    for slot in range(2, 10):
        await hypervisor.attach_disk(vm, make_disk(tmp_path, slot))
    assert set(await plugged.defined(vm)) == {0, *range(2, 10)}
    if hypervisor.boots_guests:
        assert set(await plugged.live(vm)) == {0, *range(2, 10)}


async def test_the_fakes_guests_have_disks_and_an_agent(spec: DomainSpec, tmp_path: Path) -> None:
    fake = FakeHypervisor(tmp_path, has_agent=True)
    await fake.connect()
    vm = spec.uuid
    root, data = (DomainDisk(DiskSource("file", f"/pool/{slot}", "qcow2"), slot, f"d-{slot}") for slot in (0, 2))
    await fake.ensure_pool(SharedPool("p", (), "u", str(uuid.uuid4()), "a2V5"))
    await fake.ensure_defined(replace(spec, disks=(root,)))
    await fake.ensure_started(vm)
    await fake.attach_disk(vm, data)

    assert await fake.grow_disk(vm, 2, 5)
    assert await fake.grow_disk(vm, 2, 4)
    assert fake.disks_of(vm, live=True)[2].size_bytes == 5

    for _ in range(2):
        assert await fake.snapshot_disks(vm, [0, 2], "s-1")
    assert fake.disks_of(vm, live=True)[2].snapshots == ("s-1",)
    for _ in range(2):
        assert await fake.remove_disk_snapshots(vm, [0, 2], "s-1")
    assert fake.disks_of(vm, live=True)[0].snapshots == ()

    assert await fake.freeze(vm, 1.0)
    assert fake.is_frozen(vm)
    await fake.thaw(vm, 1.0)
    assert not fake.is_frozen(vm)

    fake.faults.faults["deaf"] = "yes"
    with pytest.raises(Transient, match="device_busy"):
        await fake.detach_disk(vm, 2)
    assert set(fake.disks_of(vm, live=False)) == {0, 2}
    del fake.faults.faults["deaf"]
    fake.happen(vm, DomainState.PAUSED, DomainEventKind.PAUSED)
    with pytest.raises(Transient, match="device_busy"):
        await fake.detach_disk(vm, 2)
    fake.happen(vm, DomainState.RUNNING, DomainEventKind.RESUMED)
    await fake.detach_disk(vm, 2)
    assert set(fake.disks_of(vm, live=True)) == set(fake.disks_of(vm, live=False)) == {0}
