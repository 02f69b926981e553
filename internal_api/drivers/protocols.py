"""What a node asks of its drivers: three protocols and the dataclasses that cross them.

Every ``ensure_*`` may run twice with the same arguments; every ``remove_*`` treats absence as
success. Drivers raise :class:`terrace.errors.Transient` (worth a retry) or
:class:`terrace.errors.Permanent` and nothing of the library beneath them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

    async def ensure_pool(self, pool: SharedPool) -> None:
        """Make the pool and the secret that its domains name known to the hypervisor, and the pool active."""
        ...

    async def attach_disk(self, domain: UUID, disk: DomainDisk) -> None:
        """Plug the disk into the definition, and into the guest if it runs; it may be there already."""
        ...

    async def detach_disk(self, domain: UUID, slot: int) -> None:
        """Unplug the disk from the guest, if it runs, and from the definition; both may lack it already.

        Raises Transient ``device_busy`` when the guest does not let it go within some seconds.
        """
        ...

    async def grow_disk(self, domain: UUID, slot: int, size_bytes: int) -> bool:
        """Grow the disk of a domain that has it open, and tell the guest; false when it has not.

        Then nothing was done, and the storage can do it. Never shrinks.
        """
        ...

    async def freeze(self, domain: UUID, timeout_s: float) -> bool:
        """Have the guest agent flush and freeze all file systems; false when no agent does so in time.

        After a timeout the file systems are thawed, as far as the guest listens.
        """
        ...

    async def thaw(self, domain: UUID, timeout_s: float) -> None:
        """Have the guest agent thaw what :meth:`freeze` froze; nothing may be frozen, or nobody listen."""
        ...

    async def snapshot_disks(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        """Take a snapshot inside the images of these disks, of all at one moment, while the guest runs.

        For storages without ``live_snapshots`` only; false when the domain has the disks not open, and then
        nothing was done.
        """
        ...

    async def remove_disk_snapshots(self, domain: UUID, slots: Sequence[int], snapshot: str) -> bool:
        """Remove what :meth:`snapshot_disks` took, absent or not; false when the domain has no disk open."""
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


@dataclass(frozen=True, slots=True)
class StorageCapabilities:
    """What a storage can do, so that nobody has to ask which one it is."""

    shared: bool  # every node reaches the same pool, and may run a VM whose disks lie there
    live_snapshots: bool  # ensure_snapshot works while a running domain has the volume open


class Storage(Protocol):
    """Images, volumes and seeds of one pool. Names are chosen by the caller and are safe file names.

    Everything that is made carries the mark of the cloud that made it; nothing else is ever listed,
    changed or removed.
    """

    @property
    def capabilities(self) -> StorageCapabilities: ...

    @property
    def pool_name(self) -> str:
        """Name of the pool, the same on every node that shares it."""
        ...

    def hypervisor_pool(self) -> SharedPool | None:
        """What :meth:`Hypervisor.ensure_pool` needs; None when domains open plain files."""
        ...

    async def connect(self, cloud: UUID) -> None:
        """Make the pool usable for this cloud; removes what an interrupted import of this node left behind.

        A pool that does not answer is no error here: :meth:`ping` tells, and later calls connect by themselves.
        Raises Permanent when the settings, or libraries that are missing, can never work.
        """
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Return when the pool answers; raises Transient otherwise."""
        ...

    async def usage(self) -> PoolUsage: ...

    async def check_room(self) -> None:
        """Return when something can be written to the pool; raises Transient ``pool_full`` otherwise."""
        ...

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
        """Remove; raises Permanent ``image_in_use`` while volumes are cloned from it, and says how many."""
        ...

    async def count_children(self, sha256: str) -> int:
        """How many volumes are cloned from an image, those that were retired too: what keeps it from being removed."""
        ...

    async def ensure_volume(self, name: str, *, image_sha256: str, image_format: str, size_gib: int) -> None:
        """A writable linked clone of the image, grown to ``size_gib``; Transient ``pool_full``.

        A volume that is there already keeps its content. Permanent ``size_out_of_range`` when the image
        is larger.
        """
        ...

    async def ensure_empty_volume(self, name: str, *, size_gib: int) -> None:
        """A writable, sparse volume that reads as zeros; one that is there already keeps its content."""
        ...

    async def grow_volume(self, name: str, *, size_gib: int) -> None:
        """Grow a volume that no running domain has open; never shrinks. Permanent when it is missing."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Remove a volume with its snapshots; Transient ``volume_in_use`` while somebody has it open."""
        ...

    async def ensure_snapshot(self, volume: str, snapshot: str) -> None:
        """A read-only point in time of the volume; one that is there already stays as it is.

        Without ``live_snapshots`` no running domain may have the volume open. Permanent ``volume_missing``.
        """
        ...

    async def has_snapshot(self, volume: str, snapshot: str) -> bool:
        """Whether there is such a volume with such a snapshot; works while a running domain has it open."""
        ...

    async def remove_snapshot(self, volume: str, snapshot: str) -> None:
        """Remove it; the snapshot or its volume may be absent. The same condition as above."""
        ...

    async def roll_back(self, volume: str, snapshot: str) -> None:
        """Give a volume that nobody has open the content, and the size, that it had at the snapshot.

        Permanent ``snapshot_missing``.
        """
        ...

    async def capture_image(self, volume: str, snapshot: str) -> ImageFacts:
        """Copy a snapshot into an image of its own, that depends on nothing, under its SHA-256.

        Works while a running domain has the volume open. The same errors as :meth:`import_image`.
        """
        ...

    async def ensure_blob(self, name: str, content: bytes) -> None:
        """A small read-only volume with exactly these bytes (the seed)."""
        ...

    async def remove_blob(self, name: str) -> None: ...

    async def list_volumes(self) -> Sequence[str]:
        """Names in the pool that look like volumes or blobs of a Terrace cloud (not images); cheap."""
        ...

    async def is_ours(self, name: str) -> bool:
        """Whether a volume or blob carries this cloud's mark; false when it is absent."""
        ...

    async def retire(self, name: str) -> None:
        """Put a volume or blob of ours away where nobody lists it any more; removed for good days later.

        Refuses with Permanent what does not carry our mark, Transient ``volume_in_use`` what is open.
        """
        ...

    async def purge_retired(self, older_than_s: float) -> int:
        """Remove for good what was retired so long ago; says how many."""
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
