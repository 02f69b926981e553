"""scripts/up, scripts/down and scripts/stack in a checkout of their own, beside a running stack."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout_copy import CheckoutCopy
from polling import until
from public_client import Api
from stack_run import StackRun, processes_of

from terrace.stack import commands

pytestmark = pytest.mark.e2e
PORT = 18800


@pytest.fixture(scope="module")
def clone(folder: Path, image: Path) -> Iterator[CheckoutCopy]:
    environ = {"TERRACE_PORT_BASE": str(PORT), "TERRACE_BRIDGE": "e2e1", "TERRACE_SUBNET": "10.88.0.0/24"}
    made = CheckoutCopy(folder / "clone", image, environ | {"TERRACE_DOMAIN_TYPE": "qemu"})
    yield made
    made.must("down", "--purge")


def test_up_beside_another_checkout(clone: CheckoutCopy, stack: StackRun, api: Api) -> None:
    """Up, up again, a member killed, down, up with a machine, and gone: the other stack notices nothing."""
    others = {one.name: one.pid for one in stack.control.status()}
    first = clone.must("up", "--no-vm")
    assert f"public URL   http://127.0.0.1:{PORT}\n" in first.stdout
    assert "not created" in first.stdout
    assert re.search(r"\[ *\d+\.\d s\] healthy: ", first.stderr)
    _check_members(clone)

    began = time.monotonic()
    again = clone.must("up", "--no-vm")
    assert time.monotonic() - began < 20
    assert again.stdout == first.stdout
    assert "already running: " in again.stderr

    down = clone.must("down")
    assert "stack stopped" in down.stderr
    assert processes_of(clone.var) == []
    assert "e2e1" not in str(commands.run_json("ip", "-j", "link"))
    assert clone.script("stack", "status").returncode == 1

    purge = clone.must("down", "--purge")
    assert "data removed" in purge.stderr
    assert not clone.var.exists()
    assert {one.name: one.pid for one in stack.control.check() if one.is_well} == others
    assert api.call("GET", "/vms").status_code == 200
    tables = commands.run("nft", "list", "tables")
    assert "terrace_e2e0" in tables
    assert "terrace_e2e1" not in tables


def _check_members(clone: CheckoutCopy) -> None:
    def status() -> dict[str, dict[str, object]]:
        return {one["name"]: one for one in json.loads(clone.must("stack", "status", "--json").stdout)}

    before = status()
    assert {"postgres", "redis", "hv1", "hv2", "internal1", "external2", "haproxy-public"} <= before.keys()
    assert all(one["state"] in ("ready", "done") for one in before.values())
    assert re.search(r"^external1 +ready +\d+ ", clone.must("stack", "status").stdout, re.MULTILINE)

    clone.must("stack", "kill", "external1")
    clone.must("stack", "restart", "external2")
    until(lambda: status()["external1"]["state"] == "ready", "external1 is back", 30)
    after = status()
    assert after["external1"]["pid"] != before["external1"]["pid"]
    assert after["external1"]["restarts"] == 1
    assert after["external2"]["pid"] != before["external2"]["pid"]
    assert after["internal1"] == before["internal1"]

    assert '"event":"node_started"' in clone.must("stack", "logs", "internal1").stdout
    assert len(clone.must("stack", "logs", "internal1", "-n", "1").stdout.splitlines()) == 1
    for words in (("logs", "no-such"), ("kill", "no-such"), ("kill", "redis", "NOSIGNAL")):
        refused = clone.script("stack", *words)
        assert refused.returncode == 1
        assert re.fullmatch(r"\nError: There is no .*\n", refused.stderr), refused.stderr


def test_a_port_that_is_taken(folder: Path, clone: CheckoutCopy, image: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", PORT + 3))
        taken.listen()
        refused = clone.script("up", "--no-vm")
    assert refused.returncode == 1
    assert f"Error: Port {PORT + 3} on 127.0.0.1, which redis needs, is used by another process" in refused.stderr
    assert processes_of(clone.var) == []
    assert "e2e1" not in str(commands.run_json("ip", "-j", "link"))


def test_a_member_that_fails_is_shown_with_its_log(clone: CheckoutCopy) -> None:
    clone.must("down", "--purge")
    settings = {"TERRACE_PROFILE": "fake", "TERRACE_NODES": "1", "TERRACE_EXTERNAL_NODES": "1"}
    clone.must("up", "--no-vm", **settings)
    clone.must("down")
    control = clone.var / "postgres" / "global" / "pg_control"
    kept = control.read_bytes()
    control.write_bytes(b"\0" * len(kept))
    refused = clone.script("up", "--no-vm")
    assert refused.returncode == 1
    assert re.search(
        r"Error: postgres ended with status \d+, 3 times before it was ready. The end of .*postgres.log:\n"
        r"(    .*\n)*.*incompatible with server",
        refused.stderr,
    ), refused.stderr
    assert processes_of(clone.var) == []
    assert clone.script("stack", "status").returncode == 1
    clone.must("down", "--purge")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("VAR", "here", "the absolute path of a directory"),
        ("PORT_BASE", "80", "a whole number from"),
        ("PORT_BASE", "eight", "a whole number from"),
        ("BRIDGE", "Br 0", "an interface name"),
        ("SUBNET", "10.77.0.1/16", "an IPv4 network"),
        ("PROFILE", "xen", "one of qemu, test, fake"),
        ("NODES", "0", "a whole number from"),
        ("RAM_OVERCOMMIT", "-1", "a number from"),
        ("DNS", "dns.example", "an IPv4 address"),
        ("PUBLIC_BIND", "localhost", "an IPv4 address"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_wrong_setting_is_one_sentence(clone: CheckoutCopy, name: str, value: str, sentence: str) -> None:
    refused = clone.script("up", "--no-vm", **{f"TERRACE_{name}": value})
    assert refused.returncode == 1
    error = refused.stderr.partition("\nError: ")[2]
    assert re.fullmatch(rf"TERRACE_{name} must be {sentence}.*, not {re.escape(repr(value))}\.\n", error), (
        refused.stderr
    )
    assert processes_of(clone.var) == []
