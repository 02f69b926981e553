from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from internal_api.drivers.bridge_network import BridgeNetwork, NullNetwork
from internal_api.drivers.build import build_drivers
from internal_api.drivers.dir_storage import DirStorage
from internal_api.drivers.fake import FakeHypervisor, FakeStorage
from internal_api.drivers.libvirt_driver import LibvirtHypervisor
from internal_api.drivers.rbd_storage import RbdStorage


@dataclass
class Settings:
    node_name: str = "hv1"
    hypervisor: Any = "libvirt"
    libvirt_uri: str = "qemu:///system"
    domain_type: Any = "auto"
    emulator: str | None = None
    state_dir: Path = Path("state")
    storage: Any = "dir"
    pool_dir: Path | None = Path("pool")
    network: Any = "bridge"
    console_log_dir: Path | None = Path("console")
    fake_dir: Path | None = None
    ceph_conf: Path = Path("/etc/ceph/ceph.conf")
    ceph_pool: str = "libvirt-pool"
    ceph_user: str = "terrace"
    ceph_keyring: Path | None = None
    ceph_admin_keyring: Path | None = None
    ceph_timeout_s: float = 5.0


def test_real() -> None:
    made = build_drivers(Settings(emulator="/usr/bin/qemu"))
    assert isinstance(made.hypervisor, LibvirtHypervisor) and made.hypervisor.boots_guests
    assert isinstance(made.storage, DirStorage)
    assert isinstance(made.network, BridgeNetwork)


def test_for_breadth(tmp_path: Path) -> None:
    made = build_drivers(Settings(libvirt_uri="test:///default", storage="fake", fake_dir=tmp_path, network="none"))
    assert isinstance(made.hypervisor, LibvirtHypervisor) and not made.hypervisor.boots_guests
    assert isinstance(made.storage, FakeStorage)
    assert isinstance(made.network, NullNetwork)
    assert isinstance(build_drivers(Settings(hypervisor="fake", fake_dir=tmp_path)).hypervisor, FakeHypervisor)


def test_on_ceph() -> None:
    made = build_drivers(Settings(storage="rbd")).storage
    assert isinstance(made, RbdStorage)
    assert made.capabilities.shared and made.pool_name == "libvirt-pool"


def test_each_node_has_a_folder_of_its_own() -> None:
    made = build_drivers(Settings()).storage
    assert not made.capabilities.shared and made.pool_name == "dir-hv1" and made.hypervisor_pool() is None


@pytest.mark.parametrize("settings", [Settings(hypervisor="fake"), Settings(pool_dir=None)])
def test_a_missing_setting_is_named(settings: Settings) -> None:
    with pytest.raises(ValueError, match="TERRACE_"):
        build_drivers(settings)
