"""Guests that don't listen, and guests and hosts that act on their own."""

from __future__ import annotations

import os
import signal
import time

import pytest
from guest_login import Fleet, Guest
from polling import until
from public_client import Api, Json
from stack_run import StackRun

pytestmark = pytest.mark.e2e
# how long a change from outside may stay unknown
SOON_S = 2.0


def test_a_guest_that_hears_nothing(api: Api, stack: StackRun, guest_of: Fleet) -> None:
    vm, guest = guest_of("deaf")
    guest.wait("cloud-init status --wait; ! pidof qemu-ga")

    began = time.monotonic()
    _, operation, _ = api.act("deaf", "stop", {"timeout_s": 2})
    assert operation["result"] == {"method": "poweroff"}
    assert 2 <= time.monotonic() - began < 5

    api.act("deaf", "start")
    stop = api.begin("deaf", "stop", {"timeout_s": 60})
    assert until(lambda: api.operation(stop["id"])["state"] == "running", "the stop waits", 2)
    vm, operation, took = api.act("deaf", "poweroff")
    assert took < 1.5
    assert (vm["status"], operation["result"]) == ("stopped", {"method": "poweroff"})
    assert api.operation(stop["id"])["state"] == "superseded"

    api.act("deaf", "start")
    stop = api.begin("deaf", "stop", {"timeout_s": 60})
    until(lambda: api.operation(stop["id"])["state"] == "running", "the stop waits", 5)
    began = time.monotonic()
    api.delete("deaf")
    assert time.monotonic() - began < 2
    assert api.operation(stop["id"])["state"] == "superseded"
    assert api.call("GET", "/vms/deaf").status_code == 404
    stack.assert_consistent()


def test_an_agent_that_hangs_holds_nothing_up(api: Api, guest_of: Fleet) -> None:
    """Its port stays open, so that nobody can know that it will never answer."""
    vm, guest = guest_of("self")
    guest.run("kill -STOP $(pidof qemu-ga); kill -9 $(pidof acpid)")
    stop = api.begin("self", "stop", {"timeout_s": 60})
    until(lambda: api.operation(stop["id"])["state"] == "running", "the stop waits", 5)
    vm, _, took = api.act("self", "poweroff")
    assert took < 1.5
    assert vm["status"] == "stopped"
    api.act("self", "start")


def test_a_guest_acts_on_its_own(api: Api, stack: StackRun, guest_of: Fleet) -> None:
    vm, guest = guest_of("self")
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    guest.ssh("reboot")
    assert until(lambda: _other_boot(guest, boot), "it boots again", 90)
    assert api.vm("self")["status"] == "running"
    assert api.vm("self")["started_at"] == vm["started_at"]

    guest.ssh("poweroff")
    until(lambda: stack.virsh(vm["node"], "domstate", f"terrace-{vm['id']}") == "shut off", "it is off", 20)
    _is_soon(api, vm, "stopped")
    stack.must("restart", stack.internal_of(vm["node"]))
    api.wait_vm("self", 20, status="stopped")
    # the first look of a node's new process is over when it has placed its VMs
    until(lambda: vm["id"] in stack.placements(), "the node has looked", 10)
    assert api.vm("self")["status"] == "stopped"
    assert api.get("/operations?vm=self")[0]["id"] == api.vm("self")["operation"]
    assert stack.virsh(vm["node"], "domstate", f"terrace-{vm['id']}") == "shut off"
    api.act("self", "start")


def test_a_guest_is_ended_from_outside(api: Api, stack: StackRun, fleet: dict[str, Json]) -> None:
    vm = api.wait_vm("self", 60, status="running")
    stack.virsh(vm["node"], "destroy", f"terrace-{vm['id']}")
    _is_soon(api, vm, "stopped")
    api.act("self", "start")
    os.kill(stack.qemu_pid(vm), signal.SIGKILL)
    _is_soon(api, vm, "crashed")
    assert api.act("self", "start")[0]["status"] == "running"
    api.delete("self")
    stack.assert_consistent()


def _other_boot(guest: Guest, boot: str) -> bool:
    done = guest.ssh("cat /proc/sys/kernel/random/boot_id")
    return done.returncode == 0 and done.stdout.decode().strip() != boot


def _is_soon(api: Api, vm: Json, status: str) -> None:
    api.wait_vm(vm["id"], SOON_S, status=status, ready_at=None)
