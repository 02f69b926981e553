"""Real frames over a real bridge, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from frames import arp, dhcp_reply, ethernet, udp
from support.network_namespaces import inside, ip, new_namespace
from waiting import Collected

from internal_api.drivers.bridge_network import BridgeNetwork, NullNetwork
from internal_api.drivers.protocols import Lease, NicSpec
from terrace.errors import Permanent

A = NicSpec("52:54:00:00:00:0a", "br0", "tt00000000000a")
B = NicSpec("52:54:00:00:00:0b", "br0", "tt00000000000b")
A_IP, B_IP = "10.5.0.10", "10.5.0.11"
ALL_PROTOCOLS = 3


@dataclass
class Guest:
    """The other end of a veth pair that stands for a tap: to a bridge they are the same."""

    nic: NicSpec
    namespace: int
    wire: socket.socket

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        with inside(self.namespace):
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@dataclass
class Segment:
    """A bridge with two guests."""

    stack: ExitStack
    a: Guest
    b: Guest

    async def passes(self, frame: bytes, label: bytes) -> bool:
        """Whether a frame that guest A sends reaches guest B and the host."""
        heard = [self.b.wire, _wire("br0", self.stack)]
        for listener in heard:
            _drain(listener)
        self.a.wire.send(frame)
        await asyncio.sleep(0.05)
        results = {any(label in seen for seen in _drain(listener)) for listener in heard}
        assert len(results) == 1, "the host and the other guest must be protected alike"
        return results.pop()


def _wire(interface: str, stack: ExitStack) -> socket.socket:
    made = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    made.setblocking(False)
    made.bind((interface, ALL_PROTOCOLS))
    return made


def _drain(listener: socket.socket) -> list[bytes]:
    seen = []
    while True:
        try:
            seen.append(listener.recv(4096))
        except BlockingIOError:
            return seen


def _plug(stack: ExitStack, nic: NicSpec) -> Guest:
    namespace = stack.enter_context(new_namespace())
    ip("link", "add", nic.tap, "type", "veth", "peer", "name", "eth0", "address", nic.mac)
    ip("link", "set", nic.tap, "master", nic.bridge, "up")
    ip("link", "set", "eth0", "netns", f"/proc/self/fd/{namespace}", pass_fd=namespace)
    with inside(namespace):
        ip("link", "set", "eth0", "up")
        wire = _wire("eth0", stack)
    return Guest(nic, namespace, wire)


@pytest.fixture
def segment() -> Iterator[Segment]:
    with ExitStack() as stack:
        stack.enter_context(inside(stack.enter_context(new_namespace())))
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", "10.5.0.1/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        yield Segment(stack, _plug(stack, A), _plug(stack, B))


@pytest.fixture
async def network(segment: Segment) -> AsyncIterator[BridgeNetwork]:
    made = BridgeNetwork("hv1")
    await made.connect()
    yield made
    await made.close()


OTHER = "52:54:00:00:00:ff"
HONEST = {
    "ip": lambda label: udp(A.mac, A_IP, label),
    "arp": lambda label: arp(A.mac, A.mac, A_IP, label),
    "arp answer": lambda label: arp(A.mac, A.mac, A_IP, label, operation=2),
    "arp probe": lambda label: arp(A.mac, A.mac, "0.0.0.0", label),
}
SPOOFED = {
    "mac": lambda label: udp(OTHER, A_IP, label),
    "mac of b": lambda label: udp(B.mac, A_IP, label),
    "both of b": lambda label: udp(B.mac, B_IP, label),
    "arp sender mac": lambda label: arp(A.mac, OTHER, A_IP, label),
    "arp frame mac": lambda label: arp(OTHER, A.mac, A_IP, label),
    "dhcp server": lambda label: udp(A.mac, A_IP, label, ports=(67, 68)),
    "dhcp server elsewhere": lambda label: udp(A.mac, A_IP, label, ports=(67, 1068)),
    "ipv6": lambda label: ethernet(A.mac, 0x86DD, b"\x60" + bytes(39) + label),
    "vlan": lambda label: ethernet(A.mac, 0x8100, b"\0\x05\x08\0" + udp(A.mac, A_IP, label)[14:]),
    "spanning tree": lambda label: ethernet(A.mac, 38, b"\x42\x42\x03" + label),
}
OTHER_ADDRESS = {
    "ip": lambda label: udp(A.mac, B_IP, label),
    "ip of the gateway": lambda label: udp(A.mac, "10.5.0.1", label),
    "arp sender ip": lambda label: arp(A.mac, A.mac, B_IP, label),
    "arp answer for the gateway": lambda label: arp(A.mac, A.mac, "10.5.0.1", label, operation=2),
    "dhcp client": lambda label: udp(A.mac, "0.0.0.0", label, ports=(68, 67)),
}


async def _check(segment: Segment, cases: dict[str, Callable[[bytes], bytes]], expected: bool) -> None:
    for name, make in cases.items():
        label = f"<{name}>".encode()
        assert await segment.passes(make(label), label) is expected, name


async def test_a_guest_with_an_address_can_use_no_other(segment: Segment, network: BridgeNetwork) -> None:
    for _ in range(2):
        await network.ensure_filter(A, A_IP)
        await network.ensure_filter(B, B_IP)
    await _check(segment, HONEST, True)
    await _check(segment, SPOOFED, False)
    await _check(segment, OTHER_ADDRESS, False)


async def test_with_somebody_elses_dhcp_any_address_but_one_mac(segment: Segment, network: BridgeNetwork) -> None:
    await network.ensure_filter(A, None)
    await _check(segment, HONEST, True)
    await _check(segment, OTHER_ADDRESS, True)
    await _check(segment, SPOOFED, False)


async def test_a_change_of_address_leaves_no_old_one(segment: Segment, network: BridgeNetwork) -> None:
    await network.ensure_filter(A, None)
    await network.ensure_filter(A, A_IP)
    await _check(segment, OTHER_ADDRESS, False)
    restarted = BridgeNetwork("hv1")
    await restarted.connect()
    await restarted.ensure_filter(A, B_IP)
    assert not await segment.passes(udp(A.mac, A_IP, b"<old>"), b"<old>")
    assert await segment.passes(udp(A.mac, B_IP, b"<new>"), b"<new>")
    await restarted.close()


async def test_guests_can_talk(segment: Segment, network: BridgeNetwork) -> None:
    await network.ensure_filter(A, A_IP)
    await network.ensure_filter(B, B_IP)
    for guest, address in ((segment.a, A_IP), (segment.b, B_IP)):
        with inside(guest.namespace):
            ip("addr", "add", f"{address}/24", "dev", "eth0")
    for destination in (B_IP, "10.5.0.1"):
        assert segment.a.run("busybox", "ping", "-c", "1", "-W", "3", destination).wait() == 0
    assert await network.find_neighbour(A.mac.upper(), "br0") == A_IP
    assert await network.find_neighbour(OTHER, "br0") is None
    assert await network.find_neighbour(A.mac, "nobridge") is None


async def test_two_nodes_share_a_bridge(segment: Segment, network: BridgeNetwork) -> None:
    other = BridgeNetwork("hv2")
    await other.connect()
    await asyncio.gather(network.ensure_filter(A, A_IP), other.ensure_filter(B, B_IP))
    assert await network.list_filters() == [A.tap]
    assert await other.list_filters() == [B.tap]
    await other.remove_filter(A)
    await _check(segment, SPOOFED, False)
    await other.close()


async def test_filters_come_and_go(segment: Segment, network: BridgeNetwork) -> None:
    await network.remove_filter(A)
    await network.ensure_filter(A, A_IP)
    restarted = BridgeNetwork("hv1")
    await restarted.connect()
    for _ in range(2):
        await restarted.remove_filter(A)
    assert list(await restarted.list_filters()) == []
    await network.remove_filter(A)
    await restarted.close()


async def test_a_flushed_ruleset_is_made_again(segment: Segment, network: BridgeNetwork) -> None:
    await network.ensure_filter(A, A_IP)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert list(await network.list_filters()) == []
    await network.ensure_filter(B, B_IP)
    await network.ensure_filter(A, A_IP)
    await _check(segment, SPOOFED, False)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    await network.remove_filter(A)


@pytest.mark.parametrize(
    "nic",
    [
        NicSpec("nonsense", "br0", "tt1"),
        NicSpec(A.mac, "br0; flush ruleset", "tt1"),
        NicSpec(A.mac, "br0", "eth0"),
        NicSpec(A.mac, "br0", 'tt1" }'),
    ],
)
async def test_nothing_else_gets_into_nft(network: BridgeNetwork, nic: NicSpec) -> None:
    with pytest.raises(Permanent):
        await network.ensure_filter(nic, A_IP)
    with pytest.raises(Permanent):
        await network.ensure_filter(A, "10.0.0.1 }")


@pytest.mark.parametrize("broadcast", [(), ("-B",)], ids=["unicast", "broadcast"])
async def test_a_lease_is_seen(
    segment: Segment, network: BridgeNetwork, tmp_path: Path, broadcast: tuple[str, ...]
) -> None:
    await network.ensure_filter(A, None)
    await network.ensure_filter(B, None)
    leases = Collected(network.leases())
    # a guest that says it is a DHCP server is neither heard nor believed
    segment.a.wire.send(dhcp_reply(B.mac, "10.5.0.66", server_mac=A.mac))
    options = ["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=br0"]
    options += ["--bind-interfaces", "--leasefile-ro", "--dhcp-range=10.5.0.50,10.5.0.60", "--no-ping"]
    options.append(f"--pid-file={tmp_path}/pid")
    server = subprocess.Popen(["dnsmasq", *options], stderr=subprocess.DEVNULL)
    try:
        options = ["-i", "eth0", "-q", "-n", "-f", "-t", "30", "-T", "1", *broadcast]
        client = segment.b.run("busybox", "udhcpc", *options)
        while client.poll() is None:
            await asyncio.sleep(0.02)
        assert client.returncode == 0
        lease = await leases.wait_for(lambda lease: lease.mac == B.mac, timeout_s=2.0)
        assert lease.ip.startswith("10.5.0.5")
        assert {lease.mac for lease in leases.items} == {B.mac}
        assert "10.5.0.66" not in {lease.ip for lease in leases.items}
    finally:
        server.kill()
        server.wait()
    await network.close()
    await leases.wait_for_end()


async def test_null_network() -> None:
    network = NullNetwork()
    await network.connect()
    leases: Collected[Lease] = Collected(network.leases())
    await network.ensure_filter(A, None)
    await network.remove_filter(A)
    assert list(await network.list_filters()) == []
    assert await network.find_neighbour(A.mac, "br0") is None
    await network.close()
    await leases.wait_for_end()
