"""Bridge, address translation and forwarding, really made in the test run's own network namespace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from terrace.stack import commands, conflicts, host_network, machine
from terrace.stack.errors import StackError
from terrace.stack.host_network import FORWARDING
from terrace.stack.settings import StackSettings

pytestmark = pytest.mark.usefixtures("private_network")


def settings(tmp_path: Path, number: int = 0) -> StackSettings:
    environ = {"TERRACE_VAR": str(tmp_path / f"var{number}"), "TERRACE_BRIDGE": f"tbr{number}"}
    return StackSettings.load(tmp_path, environ | {"TERRACE_SUBNET": f"10.9{number}.0.0/16"})


@pytest.fixture
def one(tmp_path: Path) -> Iterator[StackSettings]:
    FORWARDING.write_text("0\n")
    one = settings(tmp_path)
    yield one
    host_network.remove(one)


def tables() -> set[str]:
    listing = commands.run_json("nft", "-j", "list", "tables")["nftables"]
    return {f"{item['table']['family']} {item['table']['name']}" for item in listing if "table" in item}


def test_made_twice_and_taken_away(one: StackSettings) -> None:
    host_network.ensure(one)
    host_network.ensure(one)
    (link,) = commands.run_json("ip", "-j", "-4", "addr", "show", "dev", "tbr0")
    assert [info["local"] for info in link["addr_info"]] == ["10.90.0.1"]
    assert "UP" in link["flags"]
    assert "ip terrace_tbr0" in tables()
    assert FORWARDING.read_text() == "1\n"
    commands.run("nft", "add", "table", "bridge", "terrace_tbr0")
    host_network.remove(one)
    assert host_network.owner("tbr0") is None
    assert not [name for name in tables() if "tbr0" in name]
    assert FORWARDING.read_text() == "0\n"
    host_network.remove(one)


def test_forwarding_that_was_on_stays_on(one: StackSettings) -> None:
    FORWARDING.write_text("1\n")
    host_network.ensure(one)
    host_network.remove(one)
    assert FORWARDING.read_text() == "1\n"


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_stack_restores_forwarding(one: StackSettings, tmp_path: Path, last: int) -> None:
    both = [one, settings(tmp_path, 1)]
    for stack in both:
        host_network.ensure(stack)
    host_network.remove(both[1 - last])
    assert FORWARDING.read_text() == "1\n"
    host_network.remove(both[last])
    assert FORWARDING.read_text() == "0\n"


def test_a_bridge_of_somebody_else_is_refused_and_kept(one: StackSettings) -> None:
    commands.run("ip", "link", "add", "tbr0", "type", "bridge")
    try:
        with pytest.raises(StackError, match="tbr0 exists and is not ours: set TERRACE_BRIDGE"):
            conflicts.refuse_network(one)
        with pytest.raises(StackError, match="TERRACE_BRIDGE"):
            host_network.ensure(one)
        host_network.remove(one)
        assert host_network.owner("tbr0") == ""
    finally:
        commands.run("ip", "link", "del", "tbr0")


def test_a_bridge_of_another_stack_is_named(one: StackSettings, tmp_path: Path) -> None:
    host_network.ensure(one)
    other = StackSettings.load(tmp_path, {"TERRACE_VAR": str(tmp_path / "other"), "TERRACE_BRIDGE": "tbr0"})
    with pytest.raises(StackError, match=f"of the stack under {one.var}"):
        conflicts.refuse_network(other)


@pytest.mark.parametrize("taken", ["10.90.5.1/24", "10.0.0.1/8"])
def test_a_subnet_that_the_machine_uses_is_refused(one: StackSettings, taken: str) -> None:
    commands.run("ip", "link", "add", "uplink", "type", "bridge")
    try:
        commands.run("ip", "addr", "add", taken, "dev", "uplink")
        commands.run("ip", "link", "set", "uplink", "up")
        with pytest.raises(StackError, match=r"10\.90\.0\.0/16 overlaps .* through uplink: set TERRACE_SUBNET"):
            conflicts.refuse_network(one)
    finally:
        commands.run("ip", "link", "del", "uplink")


def test_its_own_bridge_is_no_conflict(one: StackSettings) -> None:
    host_network.ensure(one)
    conflicts.refuse_network(one)


def test_a_firewall_that_drops_is_told(one: StackSettings) -> None:
    host_network.ensure(one)
    assert host_network.forwarding_blockers() == []
    rules = "add table ip docker\nadd chain ip docker FORWARD { type filter hook forward priority 0; policy drop; }\n"
    commands.run("nft", "-f", "-", input=rules)
    try:
        assert host_network.forwarding_blockers() == ["ip docker FORWARD"]
    finally:
        commands.run("nft", "delete", "table", "ip", "docker")


def test_name_servers_that_guests_can_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    monkeypatch.setattr(machine, "RESOLVER_FILES", (stub, real))
    assert machine.name_servers() == machine.PUBLIC_NAME_SERVERS
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    assert machine.name_servers() == machine.PUBLIC_NAME_SERVERS
    real.write_text("nameserver 192.0.2.53\nnameserver ::1\nnameserver fd00::1\nnameserver 192.0.2.53\nnameserver\n")
    assert machine.name_servers() == ("192.0.2.53",)
