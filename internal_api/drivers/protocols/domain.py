"""Domains and what they are made of, as the drivers hand them to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class DomainState(StrEnum):
    """What a hypervisor says of a domain."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    CRASHED = "crashed"


class DomainEventKind(StrEnum):
    """Why the hypervisor speaks."""

    STARTED = "started"
    STOPPED = "stopped"  # powered off from inside, or by a graceful shutdown
    DESTROYED = "destroyed"  # powered off from outside (by the node itself, or by an operator)
    CRASHED = "crashed"
    PAUSED = "paused"
    RESUMED = "resumed"
    REBOOTED = "rebooted"
    AGENT_CONNECTED = "agent_connected"
    AGENT_DISCONNECTED = "agent_disconnected"
    UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """One event of one domain of ours."""

    domain: UUID
    kind: DomainEventKind


@dataclass(frozen=True, slots=True)
class DiskSource:
    """How a domain reaches one disk: the XML of its ``<disk>`` less target, as the storage driver says."""

    kind: str  # "file" (dir pool) or "network" (rbd)
    path: str  # file path, or pool/image
    format: str  # "qcow2" or "raw"
    hosts: tuple[tuple[str, int], ...] = ()
    secret_uuid: str | None = None
    username: str | None = None
    cache: str = "none"
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """One disk of a domain. Slot 0 is the system disk (``vda``), 1 the seed, 2 and up are volumes."""

    source: DiskSource
    slot: int
    serial: str  # at most 20 bytes; the guest finds the disk as /dev/disk/by-id/virtio-<serial>

    @property
    def target(self) -> str:
        """The device's name in the domain: vda, vdb, …"""
        return f"vd{chr(ord('a') + self.slot)}"


@dataclass(frozen=True, slots=True)
class SharedPool:
    """What a hypervisor must know to reach a storage's pool: an rbd pool of a Ceph cluster."""

    name: str  # of libvirt's pool and of Ceph's
    hosts: tuple[tuple[str, int], ...]
    username: str
    secret_uuid: str  # the same on every node of a cluster, as domains name it
    key: str = field(repr=False)  # base64, as cephx keyrings have it; never logged


@dataclass(frozen=True, slots=True)
class NicSpec:
    """One network card on an existing bridge."""

    mac: str
    bridge: str
    tap: str  # name of the host's tap device, at most 15 bytes
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """Everything a domain is made of; known before the first side effect."""

    uuid: UUID
    vm_id: int
    name: str  # the VM's name, for people; the domain itself is named by ``domain_name``
    cpu: int
    ram_mib: int
    disks: tuple[DomainDisk, ...]
    nics: tuple[NicSpec, ...]

    @property
    def domain_name(self) -> str:
        """The domain's name in libvirt: unique on a host, as names are unique only in a project."""
        return f"terrace-{self.vm_id}"
