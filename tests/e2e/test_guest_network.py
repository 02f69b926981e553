"""What guests reach, what they can't pretend, and networks whose addresses somebody else gives."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_login import Fleet, Guest
from polling import until
from public_client import Api, Json
from stack_run import StackRun
from surroundings import HERE, OFFICE, OUTSIDE_NAME, OfficeDhcp, Outside

pytestmark = pytest.mark.e2e
# how long an address may stay unknown after its lease
SOON_S = 2.0


def test_the_outside_by_name(outside: Outside, guest_of: Fleet) -> None:
    _, guest = guest_of("left")
    assert guest.wait(f"wget -qO- http://{OUTSIDE_NAME}/hello", 15) == "the outside world"
    assert f"{HERE} - - " in outside.log("web")


def test_guests_reach_each_other(guest_of: Fleet) -> None:
    left, guest = guest_of("left")
    right, _ = guest_of("right")
    assert left["node"] != right["node"]
    guest.run(f"ping -c 1 -W 2 {right['ip']}")


def test_a_guest_can_only_be_itself(guest_of: Fleet) -> None:
    """With another's address, or with another's card, nobody answers; and its own still work afterwards."""
    _, guest = guest_of("left")
    right, _ = guest_of("right")
    other = right["ip"]
    guest.run(
        f"""ip addr add 10.87.99.99/16 dev eth0
        ping -c 1 -W 1 -I 10.87.99.99 {other} && exit 3
        ip addr del 10.87.99.99/16 dev eth0
        ping -c 1 -W 2 {other}"""
    )
    guest.run(
        f"""own=$(cat /sys/class/net/eth0/address)
        (
            ip link set eth0 address 02:00:00:00:00:99
            ip neigh flush dev eth0
            ping -c 1 -W 1 {other} >/dev/null && echo other >/root/spoofed
            ping -c 1 -W 1 10.87.0.1 >/dev/null && echo gateway >>/root/spoofed
            ip link set eth0 address $own
            ip route replace default via 10.87.0.1 dev eth0
            touch /root/tried
        ) >/dev/null 2>&1 </dev/null &"""
    )
    guest.wait("test -e /root/tried", 20)
    assert guest.ssh("cat /root/spoofed").stdout == b""
    guest.run(f"ping -c 1 -W 2 {other}")


@pytest.fixture(scope="module")
def network(api: Api, office: OfficeDhcp) -> Iterator[Json]:
    answer = api.call("POST", "/networks", {"name": "office", "bridge": OFFICE, "dhcp": "external"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["subnet"], made["gateway"], made["dhcp"]) == (None, None, "external")
    yield made
    for vm in api.get("/vms"):
        if vm["network"] == "office":
            api.delete(vm["id"])
    assert api.call("DELETE", "/networks/office").status_code == 204


def test_somebody_elses_dhcp(api: Api, network: Json, office: OfficeDhcp, stack: StackRun, key: Path) -> None:
    """The second guest's lease comes after its node's process has been killed."""
    first = api.create("lan1", network="office", ssh_keys=["laptop"])
    assert first["ip"] is None
    known_at, ip = _wait_address(api, "lan1")
    assert ip.startswith("10.99.0.")
    assert known_at - office.leased_at(ip) < SOON_S

    office.server.send_signal(signal.SIGSTOP)
    late = api.create("lan2", network="office", ssh_keys=["laptop"])
    assert late["ip"] is None
    Guest(ip, key).wait("hostname")
    api.wait_ready("lan2")  # by its agent: it has no address
    assert api.vm("lan2")["ip"] is None
    stack.must("kill", stack.internal_of(late["node"]))
    stack.control.wait(stack.internal_of(late["node"]))
    office.server.send_signal(signal.SIGCONT)
    known_at, ip = _wait_address(api, "lan2")
    assert known_at - office.leased_at(ip) < SOON_S
    assert Guest(ip, key).wait("hostname") == "lan2"
    stack.assert_consistent()


def _wait_address(api: Api, name: str) -> tuple[float, str]:
    """When (epoch, seconds) the API first told an address, and which."""
    vm = until(lambda: vm if (vm := api.vm(name))["ip"] else None, f"{name} has an address", 90, every_s=0.02)
    return time.time(), vm["ip"]
