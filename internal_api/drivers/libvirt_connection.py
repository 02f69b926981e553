"""One connection to libvirt that comes back by itself, and the raw events that it brings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple
from uuid import UUID

import libvirt

from internal_api.drivers.executor import blocking
from internal_api.drivers.libvirt_events import ensure_event_loop
from terrace.errors import Permanent, TerraceError, Transient

T = TypeVar("T")
Args = TypeVarTuple("Args")

# libvirtd's first connection asks QEMU for all it can do, which takes tens of seconds on a busy host.
OPEN_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0
KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 5, 3
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.1, 5.0

_PERMANENT_CODES = frozenset(
    {
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_NO_DOMAIN,
    }
)


def translate(error: libvirt.libvirtError) -> TerraceError:
    """Permanent when libvirt refuses what was asked, Transient for whatever else went wrong."""
    internal = f"libvirt {error.get_error_code()}: {error}"
    if error.get_error_code() in _PERMANENT_CODES:
        return Permanent("operation_failed", "The hypervisor refused the domain.", internal=internal)
    return Transient("hypervisor_unavailable", "The hypervisor failed.", internal=internal)


class LibvirtConnection:
    """Calls go through :meth:`call`; ``on_event(kind, domain, *numbers)`` runs in the event loop.

    ``kind`` is ``lifecycle``, ``reboot`` or ``agent``, ``numbers`` are libvirt's.
    """

    def __init__(self, uri: str, on_event: Callable[..., None], on_reconnect: Callable[[], None]) -> None:
        self.uri = uri
        self.is_test = uri.startswith("test:")
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._conn: Any = None
        self._callbacks: list[int] = []
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect and subscribe; raises Transient."""
        self._loop = asyncio.get_running_loop()
        self._closed = False
        try:
            conn = await blocking.run(self._open, timeout_s=OPEN_TIMEOUT_S)
        except libvirt.libvirtError as error:
            raise Transient("hypervisor_unavailable", "The hypervisor does not answer.", internal=str(error)) from None
        self._conn = conn

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait([self._reconnecting])
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(libvirt.libvirtError, Transient):
                await blocking.run(self._close, conn, timeout_s=CALL_TIMEOUT_S)

    async def call(
        self,
        fn: Callable[[Any, *Args], T],
        *args: *Args,
        key: str | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T:
        """``fn(connection, *args)`` in a thread; calls of one ``key`` never overlap."""
        if self._conn is None:
            raise Transient("hypervisor_unavailable", "The hypervisor does not answer.")
        try:
            return await blocking.run(fn, self._conn, *args, timeout_s=timeout_s, key=key)
        except libvirt.libvirtError as error:
            raise translate(error) from None

    def _open(self) -> Any:
        ensure_event_loop()
        conn = libvirt.open(self.uri)
        try:
            if not self.is_test:  # the test driver lives in this process
                conn.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
                conn.registerCloseCallback(self._closed_by_peer, None)
            self._callbacks = [
                conn.domainEventRegisterAny(None, event_id, self._received, kind)
                for event_id, kind in (
                    (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, "lifecycle"),
                    (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, "reboot"),
                    (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, "agent"),
                )
            ]
        except libvirt.libvirtError:
            conn.close()
            raise
        return conn

    def _close(self, conn: Any) -> None:
        for callback in self._callbacks:
            conn.domainEventDeregisterAny(callback)
        if not self.is_test:
            conn.unregisterCloseCallback()
        conn.close()

    # The three below are called in libvirt's event thread or from there.

    def _received(self, _conn: Any, domain: Any, *rest: Any) -> None:
        *numbers, kind = rest
        self._tell(self._on_event, kind, UUID(bytes=domain.UUID()), *numbers)

    def _closed_by_peer(self, _conn: Any, _reason: int, _opaque: object) -> None:
        self._tell(self._lost)

    def _tell(self, fn: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens
            assert self._loop is not None
            self._loop.call_soon_threadsafe(fn, *args)

    def _lost(self) -> None:
        if self._closed or (self._reconnecting is not None and not self._reconnecting.done()):
            return
        self._conn = None
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        delay_s = RECONNECT_MIN_S
        while True:
            await asyncio.sleep(delay_s)
            try:
                await self.open()
            except Transient:
                delay_s = min(delay_s * 2, RECONNECT_MAX_S)
            else:
                self._on_reconnect()
                return
