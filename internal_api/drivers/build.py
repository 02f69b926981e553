"""The drivers that the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from internal_api.domain_xml import DomainType, HostFacts, detect_domain_type
from internal_api.drivers.bridge_network import BridgeNetwork, NullNetwork
from internal_api.drivers.dir_storage import DirStorage
from internal_api.drivers.fake import FakeHypervisor, FakeStorage
from internal_api.drivers.protocols import Hypervisor, Network, Storage


class DriverSettings(Protocol):
    """The part of the node's settings that chooses its drivers."""

    @property
    def node_name(self) -> str: ...
    @property
    def hypervisor(self) -> Literal["libvirt", "fake"]: ...
    @property
    def libvirt_uri(self) -> str: ...
    @property
    def domain_type(self) -> Literal["auto", "kvm", "qemu"]: ...
    @property
    def emulator(self) -> str | None: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def storage(self) -> Literal["dir", "rbd", "fake"]: ...
    @property
    def pool_dir(self) -> Path | None: ...
    @property
    def ceph_conf(self) -> Path: ...
    @property
    def ceph_pool(self) -> str: ...
    @property
    def ceph_user(self) -> str: ...
    @property
    def ceph_keyring(self) -> Path | None: ...
    @property
    def ceph_admin_keyring(self) -> Path | None: ...
    @property
    def ceph_timeout_s(self) -> float: ...
    @property
    def network(self) -> Literal["bridge", "none"]: ...
    @property
    def console_log_dir(self) -> Path | None: ...
    @property
    def fake_dir(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Drivers:
    """One of each."""

    hypervisor: Hypervisor
    storage: Storage
    network: Network


def build_drivers(settings: DriverSettings) -> Drivers:
    """Drivers, not yet connected.

    Raises ValueError when a setting is missing, and Permanent when a library is.
    """
    return Drivers(_hypervisor(settings), _storage(settings), _network(settings))


def _hypervisor(settings: DriverSettings) -> Hypervisor:
    if settings.hypervisor == "fake":
        return FakeHypervisor(_required(settings.fake_dir, "FAKE_DIR"))
    # a node that uses no libvirt need not have it installed
    from internal_api.drivers.libvirt_driver import LibvirtHypervisor

    return LibvirtHypervisor(settings.libvirt_uri, _host_facts(settings))


def _host_facts(settings: DriverSettings) -> HostFacts:
    domain_type: DomainType
    if settings.libvirt_uri.startswith("test:"):
        domain_type = "test"
    elif settings.domain_type == "auto":
        domain_type = detect_domain_type()
    else:
        domain_type = settings.domain_type
    log_dir = settings.console_log_dir
    console_log_dir = None if log_dir is None else log_dir.absolute()
    if settings.emulator is None:
        return HostFacts(domain_type, console_log_dir=console_log_dir)
    return HostFacts(domain_type, emulator=settings.emulator, console_log_dir=console_log_dir)


def _storage(settings: DriverSettings) -> Storage:
    if settings.storage == "fake":
        return FakeStorage(_required(settings.fake_dir, "FAKE_DIR"))
    pool_dir = _required(settings.pool_dir, "POOL_DIR")
    if settings.storage == "dir":
        return DirStorage(pool_dir, f"dir-{settings.node_name}")
    # Debian's packages bring Ceph's libraries, and only a node that uses Ceph needs them
    from internal_api.drivers.ceph_connection import CephSettings
    from internal_api.drivers.rbd_storage import RbdStorage

    ceph = CephSettings(
        conf=settings.ceph_conf,
        pool=settings.ceph_pool,
        user=settings.ceph_user,
        keyring=settings.ceph_keyring or settings.state_dir / f"ceph.client.{settings.ceph_user}.keyring",
        admin_keyring=settings.ceph_admin_keyring,
        timeout_s=settings.ceph_timeout_s,
    )
    return RbdStorage(ceph, node=settings.node_name, staging=pool_dir / "staging")


def _network(settings: DriverSettings) -> Network:
    if settings.network == "bridge":
        return BridgeNetwork(settings.node_name)
    return NullNetwork()


def _required(value: Path | None, name: str) -> Path:
    if value is None:
        raise ValueError(f"the setting TERRACE_{name} is missing")
    return value
