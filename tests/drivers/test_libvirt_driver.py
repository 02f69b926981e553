"""What only libvirt can do, or do wrong."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from private_libvirtd import BRIDGE, PrivateLibvirtd, connected
from waiting import Collected, eventually

from internal_api.cloudinit import GuestConfig
from internal_api.domain_xml import HostFacts
from internal_api.drivers.dir_storage import DirStorage
from internal_api.drivers.libvirt_driver import LibvirtHypervisor
from internal_api.drivers.protocols import (
    DomainDisk,
    DomainEvent,
    DomainEventKind,
    DomainSpec,
    DomainState,
    NicSpec,
)
from internal_api.drivers.tap import tap_name
from internal_api.seed import build
from terrace.errors import Permanent, Transient

GIB = 1024**3


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


async def _raw(operator: Any, spec: DomainSpec) -> Any:
    return await asyncio.to_thread(operator.lookupByUUIDString, str(spec.uuid))


async def test_domains_of_others_are_neither_seen_nor_touched(hypervisor: LibvirtHypervisor, operator: Any) -> None:
    foreign = uuid.uuid4()
    xml = (
        f"<domain type='qemu'><name>foreign</name><uuid>{foreign}</uuid><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    events = Collected(hypervisor.events())
    domain = await asyncio.to_thread(operator.defineXML, xml)
    try:
        await asyncio.to_thread(domain.create)
        assert await hypervisor.list_states() == {}
        assert await hypervisor.find_state(foreign) is None
        await hypervisor.ensure_stopped(foreign)
        await hypervisor.remove(foreign)
        with pytest.raises(Permanent):
            await hypervisor.ensure_started(foreign)
        assert await asyncio.to_thread(domain.isActive)
    finally:
        await asyncio.to_thread(domain.destroy)
        await asyncio.to_thread(domain.undefine)
    await hypervisor.ping()
    assert events.items == []


async def test_starting_a_paused_domain_resumes_it(
    hypervisor: LibvirtHypervisor, operator: Any, spec: DomainSpec
) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    await asyncio.to_thread((await _raw(operator, spec)).suspend)
    assert await hypervisor.find_state(spec.uuid) is DomainState.PAUSED
    await events.wait_for(lambda event: event.kind is DomainEventKind.PAUSED)
    assert await hypervisor.ensure_started(spec.uuid)
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING
    await events.wait_for(lambda event: event.kind is DomainEventKind.RESUMED)


async def test_a_killed_qemu_is_a_crash(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, spec: DomainSpec
) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    libvirtd.inside("sh", "-c", f"kill -KILL $(cat /run/libvirt/qemu/{spec.domain_name}.pid)")
    await events.wait_for(lambda event: event == DomainEvent(spec.uuid, DomainEventKind.CRASHED))
    assert await hypervisor.find_state(spec.uuid) is DomainState.CRASHED
    assert await hypervisor.ensure_started(spec.uuid)


async def test_a_host_that_goes_down_is_not_the_guests_wish(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, spec: DomainSpec
) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    libvirtd.inside("sh", "-c", f"kill -TERM $(cat /run/libvirt/qemu/{spec.domain_name}.pid)")
    await events.wait_for(lambda event: event == DomainEvent(spec.uuid, DomainEventKind.DESTROYED))
    assert not [event for event in events.items if event.kind is DomainEventKind.STOPPED]


async def test_comes_back_after_libvirtd_dies(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, spec: DomainSpec
) -> None:
    reconnected = asyncio.Event()
    hypervisor.on_reconnect(reconnected.set)
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    events = Collected(hypervisor.events())
    libvirtd.restart()
    async with asyncio.timeout(30):
        await reconnected.wait()
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING
    # waits for libvirtd to have found QEMU again: it tells nothing of a domain that goes before that
    await hypervisor.reset(spec.uuid)
    await hypervisor.ensure_stopped(spec.uuid)
    await events.wait_for(lambda event: event == DomainEvent(spec.uuid, DomainEventKind.DESTROYED))


async def test_without_libvirtd_everything_is_transient(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, spec: DomainSpec, tmp_path: Path
) -> None:
    nobody = LibvirtHypervisor(f"qemu+unix:///system?socket={tmp_path}/none", HostFacts("qemu"))
    with pytest.raises(Transient):
        await nobody.connect()
    with pytest.raises(Transient):
        await nobody.ping()
    await nobody.close()
    await hypervisor.ensure_defined(spec)
    libvirtd.restart()
    with pytest.raises(Transient):
        while True:  # until the loss is noticed
            await hypervisor.ping()
    async with asyncio.timeout(30):
        while True:
            try:
                await hypervisor.ping()
                break
            except Transient:
                await asyncio.sleep(0.05)


async def test_a_whole_vm_is_accepted_and_leaves_nothing(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, operator: Any, spec: DomainSpec, tmp_path: Path
) -> None:
    storage = DirStorage(tmp_path / "pool")
    await storage.connect(uuid.uuid4())

    async def image() -> AsyncIterator[bytes]:
        yield bytes(1024**2)

    facts = await storage.import_image(image(), format="raw", checksum=None, max_bytes=GIB)
    await storage.ensure_volume(f"{spec.uuid}-root", image_sha256=facts.sha256, image_format="raw", size_gib=1)
    mac = "52:54:00:00:00:01"
    await storage.ensure_blob(f"{spec.uuid}-seed", build(GuestConfig("1", "test-1", mac, None)))
    tap = tap_name(spec.uuid)
    whole = replace(
        spec,
        name="<&'\"",
        disks=(
            DomainDisk(storage.volume_source(f"{spec.uuid}-root"), 0, "disk-0"),
            DomainDisk(storage.blob_source(f"{spec.uuid}-seed"), 1, "disk-1"),
        ),
        nics=(NicSpec(mac, BRIDGE, tap, mtu=1400),),
    )
    await hypervisor.ensure_defined(whole)
    assert await hypervisor.ensure_started(spec.uuid)
    assert libvirtd.inside("ip", "link", "show", tap).returncode == 0
    domain = await _raw(operator, spec)
    assert await asyncio.to_thread(domain.blockInfo, "vda") is not None
    spare = '<disk type="file"><source file="{}"/><target dev="vdz" bus="virtio"/><readonly/></disk>'
    await asyncio.to_thread(domain.attachDevice, spare.format(storage.blob_source(f"{spec.uuid}-seed").path))
    log = tmp_path / "console" / f"{spec.domain_name}.log"
    await eventually(log.exists)
    await hypervisor.remove(spec.uuid)
    assert not log.exists()
    assert libvirtd.inside("ip", "link", "show", tap).returncode != 0


async def test_defining_and_starting_costs_little_beside_the_hypervisor(spec: DomainSpec) -> None:
    test = LibvirtHypervisor("test:///default", HostFacts("test"))
    await test.connect()
    specs = [replace(spec, uuid=uuid.uuid4(), vm_id=spec.vm_id + number) for number in range(100)]
    began = time.process_time()
    for one in specs:
        await test.ensure_defined(one)
        await test.ensure_started(one.uuid)
    spent_ms = (time.process_time() - began) * 10
    for one in specs:
        await test.remove(one.uuid)
    await test.close()
    assert spent_ms < 5, f"{spent_ms:.2f} ms for each domain"  # about 0.6 ms on an idle machine
