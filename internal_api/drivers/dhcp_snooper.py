"""Sees DHCP acknowledgements on their way to guests' taps (packet(7))."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable

from internal_api.drivers.dhcp_ack import BPF_PROGRAM, parse_dhcp_ack
from internal_api.drivers.protocols import Lease
from internal_api.drivers.tap import TAP_PREFIX

_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_FRAME_BYTES = 2048


class DhcpSnooper:
    """Calls ``on_ack(tap, lease)`` in the event loop for each acknowledgement that leaves through a tap.

    Only what the bridge sends *to* a tap counts: whatever a guest sends, it can't tell us an address.
    Needs CAP_NET_RAW.
    """

    def __init__(self, on_ack: Callable[[str, Lease], None]) -> None:
        self._on_ack = on_ack
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen on all interfaces of the network namespace; raises OSError."""
        # ETH_P_ALL: other packet sockets don't see what leaves. The little that arrives before the filter
        # is in place is told apart by parse_dhcp_ack.
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        try:
            listener.setblocking(False)
            _attach_filter(listener)
            asyncio.get_running_loop().add_reader(listener.fileno(), self._read)
        except OSError:
            listener.close()
            raise
        self._socket = listener

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        # OSError: nothing left, or an interface went down under us
        with contextlib.suppress(OSError):
            while True:
                frame, (interface, _, kind, *_) = self._socket.recvfrom(_FRAME_BYTES)
                if kind != _PACKET_OUTGOING or not interface.startswith(TAP_PREFIX):
                    continue
                lease = parse_dhcp_ack(frame)
                if lease is not None:
                    self._on_ack(interface, lease)


def _attach_filter(listener: socket.socket) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in BPF_PROGRAM)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(BPF_PROGRAM), ctypes.addressof(buffer))  # struct sock_fprog
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
