"""Disks of real QEMU: what only it can do, or refuse."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from disks import MIB, Plugged, inspect, make_disk, snapshots_in
from private_libvirtd import PrivateLibvirtd, connected
from tiny_guest import Qemu, TinyGuest, tiny, wait_for_agent
from waiting import eventually_true

from internal_api.drivers.libvirt_driver import LibvirtHypervisor
from internal_api.drivers.protocols import DomainSpec, DomainState
from terrace.errors import Permanent, Transient

# An agent that needs long to freeze, and tells afterwards whether it was thawed.
SLOW_AGENT = r"""#!/bin/sh
exec 3<>/dev/virtio-ports/org.qemu.guest_agent.0
state=thawed
while read -r line <&3; do
    case $line in
    *guest-sync*) answer=$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/') ;;
    *guest-fsfreeze-status*) answer="\"$state\"" ;;
    *guest-fsfreeze-freeze*) sleep 12; state=frozen; answer=1 ;;
    *guest-fsfreeze-thaw*) [ "$state" = thawed ] || state='thawed after all'; answer=1 ;;
    *) answer='{}' ;;
    esac
    printf '{"return": %s}\n' "$answer" >&3
done
"""

# what is said through a guest's agent takes long where processors are emulated and busy
AGENT_S = 20.0


@pytest.fixture
async def hypervisor(qemu: LibvirtHypervisor) -> AsyncIterator[LibvirtHypervisor]:
    await connected(qemu)
    yield qemu
    for domain in await qemu.list_states():
        await qemu.remove(domain)
    await qemu.close()


@pytest.fixture
async def operator(libvirtd: PrivateLibvirtd, hypervisor: LibvirtHypervisor) -> AsyncIterator[Any]:
    """Somebody with virsh."""
    connection = await asyncio.to_thread(libvirt.open, libvirtd.uri)
    yield connection
    await asyncio.to_thread(connection.close)


@pytest.fixture
async def running(hypervisor: LibvirtHypervisor, spec: DomainSpec, tmp_path: Path) -> DomainSpec:
    """Without a system, so without anybody who would let a disk go."""
    made = replace(spec, disks=tuple(make_disk(tmp_path, slot) for slot in (0, 2)))
    await hypervisor.ensure_defined(made)
    await hypervisor.ensure_started(made.uuid)
    return made


async def test_a_guest_that_does_not_listen_keeps_its_disk(
    hypervisor: LibvirtHypervisor, plugged: Plugged, running: DomainSpec
) -> None:
    vm = running.uuid
    detaching = asyncio.create_task(hypervisor.detach_disk(vm, 2))
    await asyncio.sleep(0)
    began = time.monotonic()
    assert await hypervisor.find_state(vm) is DomainState.RUNNING
    await hypervisor.ensure_defined(running)  # the domain's lane is free
    assert time.monotonic() - began < 5
    with pytest.raises(Transient, match="device_busy"):
        await detaching
    assert set(await plugged.live(vm)) == set(await plugged.defined(vm)) == {0, 2}


async def test_a_guest_that_is_powered_off_lets_go(
    hypervisor: LibvirtHypervisor, plugged: Plugged, running: DomainSpec
) -> None:
    detaching = asyncio.create_task(hypervisor.detach_disk(running.uuid, 2))
    await asyncio.sleep(1.0)
    assert not detaching.done()
    await hypervisor.ensure_stopped(running.uuid)
    await detaching
    assert set(await plugged.defined(running.uuid)) == {0}


async def test_growing_an_open_image(hypervisor: LibvirtHypervisor, operator: Any, running: DomainSpec) -> None:
    vm, qemu = running.uuid, Qemu(operator, running)
    for _ in range(2):
        assert await hypervisor.grow_disk(vm, 2, 24 * MIB)
    assert await qemu.capacity(2) == 24 * MIB
    assert await hypervisor.grow_disk(vm, 2, 16 * MIB)
    assert await qemu.capacity(2) == 24 * MIB
    assert inspect(running.disks[1].source.path)["virtual-size"] == 24 * MIB


async def test_snapshots_in_open_images(hypervisor: LibvirtHypervisor, operator: Any, running: DomainSpec) -> None:
    vm, qemu = running.uuid, Qemu(operator, running)
    paths = [disk.source.path for disk in running.disks]
    for slot in (0, 2):
        await qemu.io(slot, "write -P 1 0 1M")
    for _ in range(2):  # the second time over what the first has left
        assert await hypervisor.snapshot_disks(vm, [0, 2], "s-1")
    assert await hypervisor.snapshot_disks(vm, [2], "s-2")
    for slot in (0, 2):
        await qemu.io(slot, "write -P 2 0 1M")
    assert [snapshots_in(path) for path in paths] == [["s-1"], ["s-1", "s-2"]]
    for _ in range(2):
        assert await hypervisor.remove_disk_snapshots(vm, [2], "s-2")
    assert await hypervisor.grow_disk(vm, 2, 24 * MIB)
    await hypervisor.ensure_stopped(vm)
    assert inspect(paths[1])["virtual-size"] == 24 * MIB
    for path in paths:
        assert snapshots_in(path) == ["s-1"]
        _read(path, 2)
        subprocess.run(["qemu-img", "snapshot", "-a", "s-1", path], check=True)
        _read(path, 1)
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
        assert inspect(path)["virtual-size"] == 8 * MIB


def _read(path: str, pattern: int) -> None:
    command = ["qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} 0 1M", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "failed" not in done.stdout, done.stdout


async def test_snapshots_are_of_all_disks_or_none(
    hypervisor: LibvirtHypervisor, running: DomainSpec, tmp_path: Path
) -> None:
    vm = running.uuid
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(MIB))
    disk = make_disk(tmp_path, 3)
    await hypervisor.attach_disk(vm, replace(disk, source=replace(disk.source, path=str(raw), format="raw")))
    with pytest.raises(Transient):  # raw images have none
        await hypervisor.snapshot_disks(vm, [0, 2, 3], "s-1")
    with pytest.raises(Permanent):
        await hypervisor.snapshot_disks(vm, [0, 2, 4], "s-1")
    assert [snapshots_in(disk.source.path) for disk in running.disks] == [[], []]


async def test_a_guest_with_its_volumes(
    hypervisor: LibvirtHypervisor, plugged: Plugged, operator: Any, spec: DomainSpec, image: Path, tmp_path: Path
) -> None:
    made = tiny(spec, image, tmp_path)
    vm, guest = made.uuid, TinyGuest(operator, made)
    await hypervisor.ensure_defined(made)
    await hypervisor.ensure_started(vm)
    early = make_disk(tmp_path, 2)
    await hypervisor.attach_disk(vm, early)
    await wait_for_agent(hypervisor, made)
    await eventually_true(lambda: guest.disk_of("volume-2"))

    for slot in range(3, 10):
        await hypervisor.attach_disk(vm, make_disk(tmp_path, slot))
    await eventually_true(lambda: guest.disk_of("volume-9"))
    name = await guest.disk_of("volume-9")
    assert await hypervisor.grow_disk(vm, 9, 32 * MIB)

    async def has_grown() -> bool:
        return int(await guest.run(f"cat /sys/block/{name}/size")) * 512 == 32 * MIB

    await eventually_true(has_grown)

    await guest.run(
        f"mke2fs -q /dev/{name} && mkdir -p /mnt && mount /dev/{name} /mnt && echo kept >/mnt/file && umount /mnt"
    )
    for _ in range(2):
        await hypervisor.detach_disk(vm, 9)
    assert await guest.disk_of("volume-9") is None
    assert 9 not in await plugged.live(vm) and 9 not in await plugged.defined(vm)
    await hypervisor.detach_disk(vm, 2)
    await hypervisor.attach_disk(vm, early)
    await eventually_true(lambda: guest.disk_of("volume-2"))

    # what the definition was given serves a start from cold
    await hypervisor.ensure_stopped(vm)
    await hypervisor.ensure_started(vm)
    await wait_for_agent(hypervisor, made)
    found = [await guest.disk_of(f"volume-{slot}") for slot in range(2, 10)]
    assert all(found[:-1]) and found[-1] is None


async def test_a_guest_that_still_boots_lets_go_in_the_end(
    hypervisor: LibvirtHypervisor, plugged: Plugged, spec: DomainSpec, image: Path, tmp_path: Path
) -> None:
    made = tiny(spec, image, tmp_path)
    await hypervisor.ensure_defined(made)
    await hypervisor.ensure_started(made.uuid)
    await hypervisor.attach_disk(made.uuid, make_disk(tmp_path, 2))
    async with asyncio.timeout(120):
        while True:
            try:
                await hypervisor.detach_disk(made.uuid, 2)
                break
            except Transient as error:
                assert error.code == "device_busy"
    assert set(await plugged.live(made.uuid)) == set(await plugged.defined(made.uuid)) == {0}


async def test_freezing_a_guest(
    hypervisor: LibvirtHypervisor, operator: Any, spec: DomainSpec, image: Path, tmp_path: Path
) -> None:
    made = tiny(spec, image, tmp_path)
    vm, guest = made.uuid, TinyGuest(operator, made)
    await hypervisor.ensure_defined(made)
    await hypervisor.ensure_started(vm)
    await wait_for_agent(hypervisor, made)
    await hypervisor.thaw(vm, AGENT_S)
    for _ in range(2):
        assert await hypervisor.freeze(vm, AGENT_S)
    assert await guest.ask("guest-fsfreeze-status") == "frozen"
    assert await hypervisor.snapshot_disks(vm, [0], "s-1")
    for _ in range(2):
        await hypervisor.thaw(vm, AGENT_S)
    assert await guest.ask("guest-fsfreeze-status") == "thawed"
    assert await guest.run("echo 1 >/file && sync && cat /file") == "1"


async def test_a_guest_that_freezes_too_late_is_thawed(
    hypervisor: LibvirtHypervisor, operator: Any, spec: DomainSpec, image: Path, tmp_path: Path
) -> None:
    made = tiny(spec, image, tmp_path)
    vm, guest = made.uuid, TinyGuest(operator, made)
    await hypervisor.ensure_defined(made)
    await hypervisor.ensure_started(vm)
    await wait_for_agent(hypervisor, made)
    install = f"cat >/usr/lib/tiny/guest-agent <<'EOF'\n{SLOW_AGENT}EOF\n"
    await guest.run(f"{install}(sleep 1; killall qemu-ga) </dev/null >/dev/null 2>&1 &")

    async def is_slow() -> bool:
        return await guest.ask("guest-info", timeout_s=5) == {}

    await eventually_true(is_slow, 120.0)
    assert not await hypervisor.freeze(vm, 1.0)

    async def is_thawed() -> bool:
        return await guest.ask("guest-fsfreeze-status") == "thawed after all"

    await eventually_true(is_thawed, 120.0)
