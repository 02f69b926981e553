"""What a node asks of its drivers: three protocols and the dataclasses that cross them.

Every ``ensure_*`` may run twice with the same arguments; every ``remove_*`` treats absence as
success. Drivers raise :class:`terrace.errors.Transient` (worth a retry) or
:class:`terrace.errors.Permanent` and nothing of the library beneath them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
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
    disks: tuple[DiskSource, ...]  # vda, vdb, … in this order
    nics: tuple[NicSpec, ...]

    @property
    def domain_name(self) -> str:
        """The domain's name in libvirt: unique on a host, as names are unique only in a project."""
        return f"terrace-{self.vm_id}"


class Hypervisor(Protocol):
    """Domains on this host. Only domains that carry Terrace's metadata are ever seen or touched."""

    @property
    def boots_guests(self) -> bool:
        """Whether a started domain runs a real guest (false for libvirt's test driver and the fake)."""
        ...

    async def connect(self) -> None:
        """Connect and subscribe to events; raises Transient when the hypervisor does not answer."""
        ...

    async def close(self) -> None:
        """Disconnect; domains go on running."""
        ...

    async def ping(self) -> None:
        """Return when the hypervisor answers; raises Transient otherwise."""
        ...

    async def ensure_defined(self, spec: DomainSpec) -> None:
        """Define the domain persistently, or redefine it: a running one changes at its next start."""
        ...

    async def ensure_started(self, domain: UUID) -> bool:
        """Start (or resume) the defined domain; true when it was not running before."""
        ...

    async def ensure_stopped(self, domain: UUID) -> None:
        """Power off at once; the domain may be absent or stopped already."""
        ...

    async def remove(self, domain: UUID) -> None:
        """Power off and undefine with all that goes with it (saved state, nvram, console log)."""
        ...

    async def find_state(self, domain: UUID) -> DomainState | None:
        """State, or None when the domain is not defined here."""
        ...

    async def list_states(self) -> Mapping[UUID, DomainState]:
        """All domains of ours on this host, running or not."""
        ...

    async def shutdown_by_agent(self, domain: UUID, *, reboot: bool = False) -> bool:
        """Ask the guest agent to power off (or reboot); false when no agent answers. Returns at once."""
        ...

    async def shutdown_by_acpi(self, domain: UUID) -> None:
        """Press the ACPI power button; the domain may be absent or stopped. Returns at once.

        For a reboot the caller starts the domain again once it is off.
        """
        ...

    async def reset(self, domain: UUID) -> None:
        """Hard reset of a running domain."""
        ...

    async def agent_answers(self, domain: UUID, timeout_s: float) -> bool:
        """Whether the guest agent answers a ping."""
        ...

    async def agent_addresses(self, domain: UUID, timeout_s: float) -> Mapping[str, Sequence[str]]:
        """MAC → IPv4 addresses as the guest agent tells; empty when it does not answer."""
        ...

    def events(self) -> AsyncIterator[DomainEvent]:
        """Events from now on, for every domain of ours; ends only when the driver is closed.

        After a lost connection the driver reconnects by itself and calls the function that
        :meth:`on_reconnect` was given, as events may have been missed.
        """
        ...

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each reconnection."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a stored image is, found by inspecting it before it is used."""

    format: str  # "qcow2" or "raw"
    size_bytes: int  # of the file
    virtual_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Bytes of the pool beneath a storage driver."""

    capacity_bytes: int
    used_bytes: int


class Storage(Protocol):
    """Images, volumes and seeds of one pool. Names are chosen by the caller and are safe file names."""

    async def connect(self) -> None:
        """Make the pool usable; removes what an interrupted import left behind."""
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Return when the pool answers; raises Transient otherwise."""
        ...

    async def usage(self) -> PoolUsage: ...

    async def import_image(
        self, chunks: AsyncIterator[bytes], *, format: str | None, checksum: str | None, max_bytes: int
    ) -> ImageFacts:
        """Store a stream under its own SHA-256, atomically; a second import of the same bytes is a no-op.

        Raises Permanent with code ``checksum_mismatch``, ``image_invalid`` (not what its format says,
        has a backing or data file, absurd size), ``image_too_large``; Transient with ``pool_full``.
        """
        ...

    async def has_image(self, sha256: str) -> bool: ...

    def image_path(self, sha256: str) -> Path | None:
        """Local file of the image when it can be served to another node as it is."""
        ...

    async def remove_image(self, sha256: str) -> None:
        """Remove; raises Permanent ``image_in_use`` while volumes are cloned from it."""
        ...

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        """A writable linked clone of the image, grown to ``size_gib``; Transient ``pool_full``.

        A volume that is there already keeps its content. Permanent ``size_out_of_range`` when the image
        is larger.
        """
        ...

    async def remove_volume(self, name: str) -> None: ...

    async def ensure_blob(self, name: str, content: bytes) -> None:
        """A small read-only volume with exactly these bytes (the seed)."""
        ...

    async def remove_blob(self, name: str) -> None: ...

    async def list_volumes(self) -> Sequence[str]:
        """Names of volumes and blobs of ours in the pool (not images)."""
        ...

    def volume_source(self, name: str) -> DiskSource: ...

    def blob_source(self, name: str) -> DiskSource: ...


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that somebody's DHCP server gave to one of our network cards."""

    mac: str
    ip: str


class Network(Protocol):
    """Host side of network cards: what may pass a tap, and which addresses appear behind it."""

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def ensure_filter(self, nic: NicSpec, ip: str | None) -> None:
        """Let only this MAC (and this IPv4 address, unless None: then any, as DHCP decides) pass the tap.

        To be called before the tap exists.
        """
        ...

    async def remove_filter(self, nic: NicSpec) -> None: ...

    async def list_filters(self) -> Sequence[str]:
        """Names of this node's taps that have a filter."""
        ...

    def leases(self) -> AsyncIterator[Lease]:
        """DHCP acknowledgements seen on the host's taps from now on."""
        ...

    async def find_neighbour(self, mac: str, bridge: str) -> str | None:
        """IPv4 address of a MAC in the host's neighbour table of that bridge."""
        ...
