"""Nodes and their parts that are killed, and the whole stack going down and up, under running guests."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from guest_login import Fleet, Guest
from polling import until
from public_client import Api, Json
from stack_run import StackRun

pytestmark = pytest.mark.e2e
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def test_every_way_in_reaches_the_owner(api: Api, stack: StackRun, guest_of: Fleet) -> None:
    left, right = guest_of("left")[0], guest_of("right")[0]
    assert {left["node"], right["node"]} == set(stack.settings.hypervisors)
    for index in range(stack.settings.external_nodes):
        url = f"http://127.0.0.1:{stack.settings.ports.external_node(index)}/api/v1"
        for vm in (left, right):
            request_id = f"to-the-owner-{index}-{vm['name']}"
            headers = {"Authorization": f"Bearer {api.token}", "X-Request-ID": request_id}
            answer = httpx.post(f"{url}/vms/{vm['name']}/actions/start", headers=headers, trust_env=False)
            assert answer.status_code == 200, answer.text
            log = stack.layout.log_of(stack.internal_of(vm["node"]))
            until(lambda: request_id in log.read_text(), f"{request_id} in {log}", 5)  # noqa: B023 - called at once


def test_libvirtd_is_killed(api: Api, stack: StackRun, guest_of: Fleet) -> None:
    """Guests don't notice; afterwards their events are heard again, and changes go on."""
    vm, guest = guest_of("left")
    boot = guest.run(BOOT_ID)
    stack.must("kill", vm["node"])
    stack.control.wait(vm["node"])
    until(lambda: _is_ready(stack, vm["node"]), "the node is ready again", 30)
    assert guest.run(BOOT_ID) == boot
    assert api.vm("left")["status"] == "running"
    guest.ssh("poweroff")
    until(lambda: stack.virsh(vm["node"], "domstate", f"terrace-{vm['id']}") == "shut off", "it is off", 20)
    api.wait_vm("left", 2, status="stopped")
    assert api.act("left", "start")[0]["status"] == "running"


def _is_ready(stack: StackRun, node: str) -> bool:
    index = stack.settings.hypervisors.index(node)
    url = f"http://127.0.0.1:{stack.settings.ports.internal_node(index)}/readyz"
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("delay_s", [0.0, 0.15, 0.4])
def test_nodes_are_killed_during_a_create(api: Api, stack: StackRun, delay_s: float) -> None:
    """Whatever the client is told, there is one machine, or none, as the operation says."""
    name = f"killed-{int(delay_s * 1000)}"
    before = stack.sql("select coalesce(max(id), 0) as id from operations")[0]["id"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api.call, "POST", "/vms", {"name": name, "ram_mib": 128}, Prefer="wait=30")
        until(lambda: _operations_since(stack, before), "the claim", 10, every_s=0.01)
        time.sleep(delay_s)  # so as to meet another step each time
        for node in stack.settings.hypervisors:
            stack.control.kill(stack.internal_of(node), signal.SIGKILL)
        answer = asked.result()
    stack.control.wait()
    operations = [api.wait_operation(row["id"]) for row in _operations_since(stack, before)]
    made = [one for one in operations if one["state"] == "succeeded"]
    assert len(made) <= 1, operations
    if made:
        assert answer.status_code in (201, 202, 502, 503, 504), answer.text
        api.wait_vm(name, 20, status="running")
        api.delete(name)
    else:
        assert api.call("GET", f"/vms/{name}").status_code == 404
    stack.assert_consistent()


def _operations_since(stack: StackRun, last: int) -> list[Json]:
    return stack.sql(f"select id from operations where kind = 'vm_create' and id > {last}")


def test_the_stack_goes_down_and_up(api: Api, stack: StackRun, image: Path, key: Path, guest_of: Fleet) -> None:
    """What should run runs again, with its data and its address; what was stopped stays stopped."""
    left, guest = guest_of("left")
    guest.run("echo kept >/root/data; sync")
    boot = guest.run(BOOT_ID)
    right = api.act("right", "stop")[0]
    stack.must("down")
    assert stack.command("status").returncode == 1
    stack.up(image)
    api.wait_vm("left", 30, status="running")
    guest = Guest(left["ip"], key)
    assert guest.wait("cat /root/data") == "kept"
    assert guest.run(BOOT_ID) != boot
    assert api.vm("right") | {"operation": None} == right | {"operation": None}
    assert stack.virsh(right["node"], "domstate", f"terrace-{right['id']}") == "shut off"
    assert all(member["state"] in ("ready", "done") for member in _members(stack))
    stack.assert_consistent()


def _members(stack: StackRun) -> list[Json]:
    return [{"name": one.name, "state": one.state} for one in stack.control.check()]


def test_everything_deleted_leaves_nothing(api: Api, stack: StackRun, fleet: dict[str, Json]) -> None:
    vms = api.get("/vms")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(api.delete, [vm["id"] for vm in vms]))
    assert api.get("/vms") == []
    stack.assert_consistent()
    assert stack.sql("select 1 from nodes where cpu_claimed + ram_claimed_mib <> 0") == []
    assert stack.sql("select 1 from pools where claimed_gib <> 0") == []
    assert stack.sql("select 1 from addresses where vm_id is not null") == []
    assert stack.filtered_taps() == stack.taps() == set()
    assert stack.placements() == set()
    assert stack.pool_files() == []
    assert all(not names for names in stack.domains().values())
