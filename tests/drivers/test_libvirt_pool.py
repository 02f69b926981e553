"""libvirt and a real Ceph cluster."""

from __future__ import annotations

import asyncio
import configparser
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from private_libvirtd import PrivateLibvirtd, connected
from support.polling import eventually

from internal_api.domain_xml import HostFacts
from internal_api.drivers.libvirt_driver import POOL_TIMEOUT_S, LibvirtHypervisor
from internal_api.drivers.protocols import DiskSource, DomainDisk, DomainSpec, DomainState, SharedPool
from terrace.errors import Permanent, Transient
from terrace.stack.ceph_cluster import CephCluster

MIB = 1024**2


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirtd]:
    """In the network of the cluster."""
    daemon = PrivateLibvirtd(tmp_path_factory.mktemp("hv"), shares_network=True)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
async def hypervisor(libvirtd: PrivateLibvirtd) -> AsyncIterator[LibvirtHypervisor]:
    made = LibvirtHypervisor(libvirtd.uri, HostFacts("qemu"))
    await connected(made)
    yield made
    for domain in await made.list_states():
        await made.remove(domain)
    await made.close()


@pytest.fixture
def operator(libvirtd: PrivateLibvirtd, hypervisor: LibvirtHypervisor) -> Iterator[Any]:
    """Somebody with virsh, who leaves no pools."""
    connection = libvirt.open(libvirtd.uri)
    yield connection
    for pool in connection.listAllStoragePools():
        if pool.isActive():
            pool.destroy()
        pool.undefine()
    connection.close()


@pytest.fixture
def pool(ceph: CephCluster) -> SharedPool:
    keyring = configparser.ConfigParser()
    keyring.read_string("\n".join(line.strip() for line in ceph.admin_keyring.read_text().splitlines()))
    settings = ceph.settings
    hosts = tuple((settings.address(mon), 6789) for mon in settings.mon_daemons)
    return SharedPool(settings.pool, hosts, "admin", str(uuid.uuid4()), keyring["client.admin"]["key"])


@pytest.fixture
def nobody() -> Iterator[tuple[str, int]]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[:2]


@pytest.fixture
def rbd_image(ceph: CephCluster, pool: SharedPool) -> Iterator[str]:
    name = f"{pool.name}/{uuid.uuid4()}-root"
    command = ["rbd", "-c", str(ceph.conf), "-k", str(ceph.admin_keyring)]
    subprocess.run([*command, "create", name, "--size", "16M"], check=True)
    yield name
    subprocess.run([*command, "rm", "--no-progress", name], check=True)


def _disk(pool: SharedPool, image: str, slot: int = 0) -> DomainDisk:
    source = DiskSource(
        "network",
        image,
        "raw",
        hosts=pool.hosts,
        secret_uuid=pool.secret_uuid,
        username=pool.username,
        cache="writeback",
    )
    return DomainDisk(source, slot, f"disk-{slot}")


async def test_secret_and_pool(hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, rbd_image: str) -> None:
    for _ in range(2):
        await hypervisor.ensure_pool(pool)
    found = await asyncio.to_thread(operator.storagePoolLookupByName, pool.name)
    assert found.isActive() and found.isPersistent() and not found.autostart()
    assert rbd_image.split("/")[1] in found.listVolumes()
    secret = operator.secretLookupByUUIDString(pool.secret_uuid)
    assert pool.key not in secret.XMLDesc() + found.XMLDesc()
    assert pool.key not in repr(pool)
    with pytest.raises(libvirt.libvirtError, match="private"):
        secret.value()


async def test_an_inactive_pool_is_started(hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool) -> None:
    await hypervisor.ensure_pool(pool)
    found = await asyncio.to_thread(operator.storagePoolLookupByName, pool.name)
    await asyncio.to_thread(found.destroy)
    await hypervisor.ensure_pool(pool)
    assert found.isActive()


async def test_a_pool_follows_its_settings(hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool) -> None:
    await hypervisor.ensure_pool(pool)
    changed = replace(pool, hosts=pool.hosts[:1], secret_uuid=str(uuid.uuid4()))
    for _ in range(2):
        await hypervisor.ensure_pool(changed)
    found = await asyncio.to_thread(operator.storagePoolLookupByName, pool.name)
    xml = found.XMLDesc()
    assert changed.secret_uuid in xml and xml.count("<host ") == 1 and found.isActive()


async def test_another_pool_of_that_name_is_left_alone(
    hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, tmp_path: Path
) -> None:
    xml = f"<pool type='dir'><name>{pool.name}</name><target><path>{tmp_path}</path></target></pool>"
    theirs = await asyncio.to_thread(operator.storagePoolDefineXML, xml)
    await asyncio.to_thread(theirs.create)
    with pytest.raises(Permanent):
        await hypervisor.ensure_pool(pool)
    assert theirs.isActive() and "type='dir'" in theirs.XMLDesc()


@pytest.mark.parametrize("key", ["not base64!", "AQ=="])
async def test_a_useless_key_is_never_told(
    hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, key: str
) -> None:
    with pytest.raises((Permanent, Transient)) as caught:
        await hypervisor.ensure_pool(replace(pool, key=key))
    assert key not in str(caught.value)


async def test_a_cluster_that_is_away_holds_up_nothing_else(
    hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, nobody: tuple[str, int], spec: DomainSpec
) -> None:
    away = replace(pool, hosts=(nobody,))
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)  # the first start takes long: libvirt finds out what QEMU can do
    began = time.monotonic()
    attempts = asyncio.gather(*(hypervisor.ensure_pool(away) for _ in range(2)), return_exceptions=True)
    await asyncio.sleep(1.0)
    for _ in range(10):
        await hypervisor.ping()
    assert not attempts.done()
    await hypervisor.ensure_stopped(spec.uuid)
    assert await hypervisor.ensure_started(spec.uuid)
    assert [type(error) for error in await attempts] == [Transient, Transient]
    assert time.monotonic() - began < POOL_TIMEOUT_S + 10

    async def is_there() -> bool:  # once libvirtd has given up
        try:
            await hypervisor.ensure_pool(pool)
        except Transient:
            return False
        return True

    await eventually(is_there, within_s=60.0)


async def test_a_domain_with_its_disk_in_the_pool(
    hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, rbd_image: str, spec: DomainSpec
) -> None:
    await hypervisor.ensure_pool(pool)
    vm = spec.uuid
    await hypervisor.ensure_defined(replace(spec, disks=(_disk(pool, rbd_image),)))
    assert await hypervisor.ensure_started(vm)
    assert await hypervisor.grow_disk(vm, 0, 32 * MIB)
    handle = await asyncio.to_thread(operator.lookupByUUID, vm.bytes)
    assert (await asyncio.to_thread(handle.blockInfo, "vda"))[0] == 32 * MIB
    assert await hypervisor.find_state(vm) is DomainState.RUNNING
    await hypervisor.remove(vm)


async def test_plugging_a_disk_of_the_pool_in(
    hypervisor: LibvirtHypervisor, operator: Any, pool: SharedPool, rbd_image: str, spec: DomainSpec
) -> None:
    await hypervisor.ensure_pool(pool)
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    for _ in range(2):
        await hypervisor.attach_disk(spec.uuid, _disk(pool, rbd_image, 2))
    moved = _disk(replace(pool, hosts=pool.hosts[1:]), rbd_image, 2)
    await hypervisor.attach_disk(spec.uuid, moved)  # the same disk by other monitors
    await hypervisor.ensure_stopped(spec.uuid)
    await hypervisor.detach_disk(spec.uuid, 2)
    await hypervisor.remove(spec.uuid)


async def test_libvirtd_comes_back_without_its_pool(
    hypervisor: LibvirtHypervisor, libvirtd: PrivateLibvirtd, pool: SharedPool
) -> None:
    await hypervisor.ensure_pool(pool)
    back = asyncio.Event()
    hypervisor.on_reconnect(back.set)
    libvirtd.restart()
    async with asyncio.timeout(30):
        await back.wait()
    connection = await asyncio.to_thread(libvirt.open, libvirtd.uri)
    found = await asyncio.to_thread(connection.storagePoolLookupByName, pool.name)
    assert not found.isActive()
    await hypervisor.ensure_pool(pool)
    assert found.isActive()
    await asyncio.to_thread(connection.close)
