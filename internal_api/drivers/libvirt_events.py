"""libvirt's event loop, and its events in Terrace's words."""

from __future__ import annotations

import threading
from uuid import UUID

import libvirt

from internal_api.drivers.protocols import DomainEventKind

_started = threading.Lock()
_thread: threading.Thread | None = None


def ensure_event_loop() -> None:
    """Run libvirt's own event loop in a thread of its own. Must be called before a connection is opened.

    libvirtaio would run it inside asyncio, but its functions are called by whichever thread makes a
    libvirt call, and they change the asyncio loop from there, which neither asyncio nor uvloop allows.
    libvirt's own loop is made for threads, and its registration, once per process, outlives any loop.
    """
    global _thread  # noqa: PLW0603 - libvirt's registration is global too
    with _started:
        if _thread is not None:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised: keep them off stderr
        libvirt.virEventRegisterDefaultImpl()
        _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
        _thread.start()


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class LifecycleReader:
    """Turns lifecycle events (``virDomainEventType`` and its details) into ours; None for the rest."""

    def __init__(self) -> None:
        self._killed_by_host: set[UUID] = set()

    def read(self, domain: UUID, event: int, detail: int) -> DomainEventKind | None:
        match event:
            case libvirt.VIR_DOMAIN_EVENT_STARTED:
                self._killed_by_host.discard(domain)
                return DomainEventKind.STARTED
            case libvirt.VIR_DOMAIN_EVENT_SUSPENDED | libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED:
                return DomainEventKind.PAUSED
            case libvirt.VIR_DOMAIN_EVENT_RESUMED:
                return DomainEventKind.RESUMED
            case libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
                # Comes before STOPPED and tells who wanted it. A host that goes down ends QEMU by a
                # signal: that is not the guest's own wish.
                if detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST:
                    self._killed_by_host.add(domain)
                return None
            case libvirt.VIR_DOMAIN_EVENT_STOPPED:
                return self._read_stopped(domain, detail)
            case libvirt.VIR_DOMAIN_EVENT_CRASHED:
                return DomainEventKind.CRASHED
            case libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
                self._killed_by_host.discard(domain)
                return DomainEventKind.UNDEFINED
            case _:
                return None

    def _read_stopped(self, domain: UUID, detail: int) -> DomainEventKind:
        killed = domain in self._killed_by_host
        self._killed_by_host.discard(domain)
        match detail:
            case libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
                return DomainEventKind.DESTROYED if killed else DomainEventKind.STOPPED
            case libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED | libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED:
                return DomainEventKind.CRASHED
            case _:  # destroyed, saved, migrated away, reverted to a snapshot: from outside
                return DomainEventKind.DESTROYED
