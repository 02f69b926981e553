"""One of each driver that there is, for suites that must hold for all of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from disks import Plugged
from private_libvirtd import PrivateLibvirtd, connected
from support.ceph import ceph as ceph

from internal_api.domain_xml import HostFacts
from internal_api.drivers.fake import FakeHypervisor
from internal_api.drivers.libvirt_driver import LibvirtHypervisor
from internal_api.drivers.protocols import DomainSpec, Hypervisor


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirtd]:
    daemon = PrivateLibvirtd(tmp_path_factory.mktemp("hv"))
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def qemu(libvirtd: PrivateLibvirtd, tmp_path: Path) -> LibvirtHypervisor:
    return LibvirtHypervisor(libvirtd.uri, HostFacts("qemu", console_log_dir=tmp_path / "console"))


@pytest.fixture(params=["fake", "libvirt-test", "qemu"])
async def hypervisor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hypervisor]:
    made: Hypervisor
    match request.param:
        case "fake":
            made = FakeHypervisor(tmp_path)
        case "libvirt-test":
            made = LibvirtHypervisor("test:///default", HostFacts("test"))
        case _:
            made = request.getfixturevalue("qemu")
    await connected(made)
    yield made
    for domain in await made.list_states():
        await made.remove(domain)
    await made.close()


@pytest.fixture
def plugged(request: pytest.FixtureRequest, hypervisor: Hypervisor) -> Plugged:
    """Whose domains have which disks."""
    uri = request.getfixturevalue("libvirtd").uri if hypervisor.boots_guests else "test:///default"
    return Plugged(hypervisor, uri)


@pytest.fixture(scope="session")
def image() -> Path:
    """The tiny guest's."""
    if "TERRACE_TEST_IMAGE" not in os.environ:
        pytest.skip("scripts/test builds the guest image that this needs")
    return Path(os.environ["TERRACE_TEST_IMAGE"])


@pytest.fixture
def spec() -> DomainSpec:
    """A domain without disks and cards: enough for its life cycle."""
    vm = uuid.uuid4()
    return DomainSpec(uuid=vm, vm_id=vm.int % 10**9, name="test-1", cpu=1, ram_mib=64, disks=(), nics=())
