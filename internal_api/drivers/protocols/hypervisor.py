"""What a node asks of the hypervisor on its host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from internal_api.drivers.protocols.domain import DomainDisk, DomainEvent, DomainSpec, DomainState, SharedPool


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
