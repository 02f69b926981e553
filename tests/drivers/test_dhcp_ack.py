from __future__ import annotations

import random

import pytest
from frames import dhcp_reply, ethernet, udp

from internal_api.drivers.dhcp_ack import parse_dhcp_ack
from internal_api.drivers.protocols import Lease

MAC = "52:54:00:aa:bb:cc"
GOOD = dhcp_reply(MAC, "10.5.0.20", options=bytes([0, 0, 54, 4, 10, 5, 0, 1]))
LEASE = Lease(MAC, "10.5.0.20")


def test_reads_an_acknowledgement() -> None:
    assert parse_dhcp_ack(GOOD) == LEASE
    assert parse_dhcp_ack(dhcp_reply(MAC, "10.5.0.20", ip_options=b"\x01\x01\x01\x00")) == LEASE
    assert parse_dhcp_ack(GOOD + bytes(20)) == LEASE  # padding behind the datagram


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        dhcp_reply(MAC, "10.5.0.20", message=2),
        dhcp_reply(MAC, "10.5.0.20", message=6),
        dhcp_reply(MAC, "0.0.0.0"),
        dhcp_reply(MAC, "224.0.0.1"),
        dhcp_reply(MAC, "127.0.0.1"),
        dhcp_reply(MAC, "10.5.0.20", options=bytes([255])),
        dhcp_reply(MAC, "10.5.0.20", options=bytes([54, 250])),
        udp(MAC, "10.5.0.1", GOOD[42:], ports=(67, 67)),
        udp(MAC, "10.5.0.1", GOOD[42:], ports=(68, 67)),
        udp(MAC, "10.5.0.1", b"\x01" + GOOD[43:], ports=(67, 68)),
        udp(MAC, "10.5.0.1", GOOD[42:].replace(b"\x63\x82\x53\x63", b"\0\0\0\0"), ports=(67, 68)),
        ethernet(MAC, 0x8100, b"\0\x05\x08\0" + GOOD[14:]),
        GOOD[:20] + b"\x00\x10" + GOOD[22:],  # a later fragment
        GOOD[:14] + b"\x65" + GOOD[15:],  # version 6
        GOOD[:14] + b"\x41" + GOOD[15:],  # a header of 4 bytes
    ],
)
def test_ignores_everything_else(frame: bytes) -> None:
    assert parse_dhcp_ack(frame) is None


def test_no_garbage_hurts() -> None:
    for length in range(len(GOOD)):
        assert parse_dhcp_ack(GOOD[:length]) in (None, LEASE)
    chance = random.Random(1)
    for _ in range(5000):
        frame = bytearray(GOOD)
        for _ in range(chance.randrange(1, 20)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        found = parse_dhcp_ack(bytes(frame))
        assert found is None or isinstance(found, Lease)
