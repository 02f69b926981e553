"""DHCP acknowledgements in Ethernet frames (RFC 2131, RFC 2132)."""

from __future__ import annotations

import ipaddress
import struct

from internal_api.drivers.protocols import Lease

_ETHERNET_BYTES = 14
_ETHERTYPE_IPV4 = 0x0800
_UDP = 17
_UDP_BYTES = 8
_SERVER_PORT, _CLIENT_PORT = 67, 68
_FRAGMENT_OFFSET = 0x1FFF
_BOOTP_BYTES = 236
_BOOT_REPLY = 2
_ETHERNET, _MAC_BYTES = 1, 6
_MAGIC_COOKIE = b"\x63\x82\x53\x63"
_PAD, _MESSAGE_TYPE, _END = 0, 53, 255
_ACK = b"\x05"

# (code, jump if true, jump if false, k): IPv4, UDP, not a later fragment, from port 67 to port 68.
# Only such frames wake the process (https://docs.kernel.org/networking/filter.html).
BPF_PROGRAM = (
    (0x28, 0, 0, 12),  # 0: ldh [12]
    (0x15, 0, 8, _ETHERTYPE_IPV4),  # else to 10
    (0x30, 0, 0, 23),  # 2: ldb [23]
    (0x15, 0, 6, _UDP),
    (0x28, 0, 0, 20),  # 4: ldh [20]
    (0x45, 4, 0, _FRAGMENT_OFFSET),
    (0xB1, 0, 0, 14),  # 6: ldx 4 * ([14] & 15), the header's length
    (0x40, 0, 0, 14),  # ld [x + 14]: both ports
    (0x15, 0, 1, _SERVER_PORT << 16 | _CLIENT_PORT),
    (0x06, 0, 0, 0xFFFF),  # 9: take it
    (0x06, 0, 0, 0),  # 10: leave it
)


def parse_dhcp_ack(frame: bytes) -> Lease | None:
    """The lease that an untagged frame acknowledges; None for everything else, well formed or not."""
    payload = _udp_payload(frame)
    if payload is None or len(payload) < _BOOTP_BYTES + len(_MAGIC_COOKIE):
        return None
    operation, hardware, hardware_bytes = payload[0], payload[1], payload[2]
    if (operation, hardware, hardware_bytes) != (_BOOT_REPLY, _ETHERNET, _MAC_BYTES):
        return None
    if payload[_BOOTP_BYTES : _BOOTP_BYTES + 4] != _MAGIC_COOKIE:
        return None
    if _find_option(payload[_BOOTP_BYTES + 4 :], _MESSAGE_TYPE) != _ACK:
        return None
    address = ipaddress.IPv4Address(payload[16:20])  # yiaddr: zero in the answer to an INFORM
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return None
    return Lease(mac=payload[28:34].hex(":"), ip=str(address))


def _udp_payload(frame: bytes) -> bytes | None:
    if len(frame) < _ETHERNET_BYTES + 20 + _UDP_BYTES:
        return None
    if int.from_bytes(frame[12:14], "big") != _ETHERTYPE_IPV4:
        return None
    packet = frame[_ETHERNET_BYTES:]
    header_bytes = (packet[0] & 0x0F) * 4
    fragment = int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET
    if packet[0] >> 4 != 4 or header_bytes < 20 or packet[9] != _UDP or fragment:
        return None
    total_bytes = int.from_bytes(packet[2:4], "big")
    datagram = packet[header_bytes:total_bytes]
    if len(datagram) < _UDP_BYTES:
        return None
    source, destination, length = struct.unpack_from(">HHH", datagram)
    if (source, destination) != (_SERVER_PORT, _CLIENT_PORT):
        return None
    return datagram[_UDP_BYTES:length]


def _find_option(options: bytes, wanted: int) -> bytes | None:
    position = 0
    while position < len(options):
        code = options[position]
        if code == _END:
            return None
        if code == _PAD:
            position += 1
            continue
        if position + 1 >= len(options):
            return None
        length = options[position + 1]
        if code == wanted:
            return options[position + 2 : position + 2 + length]
        position += 2 + length
    return None
