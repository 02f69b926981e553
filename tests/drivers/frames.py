"""Ethernet frames made by hand."""

from __future__ import annotations

import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, kind: int, payload: bytes, destination: str = BROADCAST) -> bytes:
    return (mac_bytes(destination) + mac_bytes(source) + struct.pack(">H", kind) + payload).ljust(60, b"\0")


def udp(source: str, ip: str, payload: bytes, *, ports: tuple[int, int] = (1000, 2000), options: bytes = b"") -> bytes:
    """A UDP datagram to everybody."""
    datagram = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    words = 5 + len(options) // 4
    total = words * 4 + len(datagram)
    header = struct.pack(">BBHHHBBH", 0x40 | words, 0, total, 1, 0, 64, 17, 0)
    header += socket.inet_aton(ip) + socket.inet_aton("255.255.255.255") + options
    check = sum(struct.unpack(f">{words * 2}H", header))
    check = ~(check + (check >> 16)) & 0xFFFF
    header = header[:10] + struct.pack(">H", check) + header[12:]
    return ethernet(source, 0x0800, header + datagram)


def arp(source: str, sender_mac: str, sender_ip: str, label: bytes, *, operation: int = 1) -> bytes:
    """An ARP packet, with a label where Ethernet pads."""
    packet = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    packet += mac_bytes(sender_mac) + socket.inet_aton(sender_ip) + bytes(6) + socket.inet_aton("10.5.0.99")
    return ethernet(source, 0x0806, packet + label)


def dhcp_reply(
    client_mac: str,
    address: str,
    *,
    message: int = 5,
    server_mac: str = "02:00:00:00:00:01",
    options: bytes = b"",
    ip_options: bytes = b"",
) -> bytes:
    """An acknowledgement (``message`` 5) of an address, or another answer of a DHCP server."""
    bootp = struct.pack(">BBBBIHH", 2, 1, 6, 0, 0x1234, 0, 0) + bytes(4) + socket.inet_aton(address) + bytes(8)
    bootp += mac_bytes(client_mac).ljust(16, b"\0") + bytes(192)
    bootp += b"\x63\x82\x53\x63" + options + bytes([53, 1, message, 255])
    return udp(server_mac, "10.5.0.1", bootp, ports=(67, 68), options=ip_options)
