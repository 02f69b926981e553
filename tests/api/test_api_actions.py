"""Actions on VMs: what each does in each state, and what a repeat does."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from support.api import Api
from support.fake_stack import FakeStack
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only
ACTIONS = ("start", "stop", "reboot", "reset", "poweroff")


async def result_of(api: Api, vm: dict[str, Any]) -> dict[str, Any]:
    op: dict[str, Any] = await api.get(f"/operations/{vm['operation']}")
    assert op["state"] == "succeeded"
    result: dict[str, Any] = op["result"]
    return result


async def set_state(stack: FakeStack, database: Database, vm: dict[str, Any], state: str, status: str) -> None:
    """The guest's state changes behind Terrace's back, and Terrace has seen it."""
    uuid: UUID = await database.fetchval("update vms set status = $2 where id = $1 returning uuid", vm["id"], status)
    file = stack.worlds[vm["node"]].folder / "domains" / str(uuid)
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": state}))


@pytest.mark.parametrize(
    ("action", "status", "result"),
    [
        ("start", "running", None),
        ("stop", "stopped", {"method": "acpi"}),
        ("reboot", "running", {"method": "acpi"}),
        ("reset", "running", {}),
        ("poweroff", "stopped", {"method": "poweroff"}),
    ],
)
async def test_actions_on_a_running_vm(api: Api, action: str, status: str, result: Any) -> None:
    vm = await api.create()
    for _ in range(2):
        response = await api.act(vm, action)
        assert response.status_code == 200, response.text
        changed = response.json()
        assert changed["status"] == status
        assert changed == await api.get(f"/vms/{vm['id']}")
    if action in ("start", "stop", "poweroff"):
        operations = [op["kind"] for op in await api.get(f"/operations?vm={vm['id']}")]
        assert operations.count(f"vm_{action}") == (0 if action == "start" else 1), "a repeat has nothing left to do"
    if result is not None:
        assert await result_of(api, changed) == result


@pytest.mark.parametrize("action", ACTIONS)
async def test_actions_on_a_stopped_vm(api: Api, action: str) -> None:
    vm = (await api.act(await api.create(), "stop")).json()
    response = await api.act(vm, action)
    if action in ("reboot", "reset"):
        problem = assert_problem(response, 409, "vm_state")
        assert "stopped" in problem["detail"] and "start" in problem["detail"]
    else:
        assert response.status_code == 200
        assert response.json()["status"] == ("running" if action == "start" else "stopped")
        assert (response.json()["started_at"] > vm["started_at"]) == (action == "start") or action == "start"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("state", "status"), [("paused", "paused"), ("crashed", "crashed")])
async def test_actions_on_paused_and_crashed_vms(
    api: Api, fake_stack: FakeStack, database: Database, state: str, status: str, action: str
) -> None:
    vm = await api.create()
    await set_state(fake_stack, database, vm, state, status)
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == status
    response = await api.act(vm, action)
    if status == "crashed" and action in ("stop", "reboot", "reset"):
        problem = assert_problem(response, 409, "vm_state")
        assert "crashed" in problem["detail"] and "start, poweroff" in problem["detail"]
    else:
        assert response.status_code == 200, response.text
        assert response.json()["status"] == ("stopped" if action in ("stop", "poweroff") else "running")


async def test_a_deaf_guest_is_powered_off_when_its_time_is_over(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        response = await api.act(vm, "stop", timeout_s=1)
        assert (response.status_code, response.json()["status"]) == (200, "stopped")
        assert await result_of(api, response.json()) == {"method": "poweroff"}
        vm = (await api.act(vm, "start")).json()
        response = await api.act(vm, "reboot", timeout_s=1)
        assert (response.status_code, response.json()["status"]) == (200, "running")
        assert await result_of(api, response.json()) == {"method": "reset"}


async def begin_stop(api: Api, vm: dict[str, Any], timeout_s: int = 600) -> Any:
    response = await api.http.post(
        f"/vms/{vm['id']}/actions/stop", json={"timeout_s": timeout_s}, headers={"Prefer": "wait=0"}
    )
    assert (response.status_code, response.json()["status"]) == (202, "stopping")
    return response


@pytest.mark.parametrize("method", ["poweroff", "delete"])
async def test_poweroff_and_delete_take_the_place_of_a_waiting_stop(
    api: Api, fake_stack: FakeStack, method: str
) -> None:
    vm = await api.create()
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        stop = await begin_stop(api, vm)
        waiting = asyncio.create_task(api.act(vm, "stop", timeout_s=600))
        await asyncio.sleep(0.2)
        for action in ("start", "reboot", "reset"):
            problem = assert_problem(await api.act(vm, action), 409, "vm_busy")
            assert "vm_stop" in problem["detail"]
        if method == "poweroff":
            response = await api.act(vm, "poweroff")
            assert (response.status_code, response.json()["status"]) == (200, "stopped")
        else:
            response = await api.http.delete(f"/vms/{vm['id']}")
            assert response.status_code == 204
        assert response.elapsed.total_seconds() < 4
    assert (await api.operation(stop))["state"] == "superseded"
    assert_problem(await waiting, 409, "superseded")


async def test_a_stop_that_waits_can_be_joined(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        first = await begin_stop(api, vm, timeout_s=2)
        second = await api.act(vm, "stop", timeout_s=600)
    assert second.status_code == 200
    assert second.json()["operation"] == first.json()["operation"]
    assert second.json()["status"] == "stopped"


async def test_a_guest_that_powers_itself_off_is_seen_and_stays_off(
    api: Api, fake_stack: FakeStack, database: Database
) -> None:
    vm = await api.create()
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    file = fake_stack.worlds[vm["node"]].folder / "domains" / str(uuid)
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "stopped"}))
    assert (await api.act(vm, "stop")).json()["status"] == "stopped"
    assert (await api.act(vm, "start")).json()["status"] == "running"


@pytest.mark.parametrize(
    "body",
    [
        {"timeout_s": 0},
        {"timeout_s": 601},
        {"timeout_s": "9"},
        {"timeout_s": None},
        {"timeout_s": 1.5},
        {"force": True},
        [],
        "now",
        5,
        True,
    ],
    ids=str,
)
async def test_bodies_of_actions_are_checked(api: Api, body: Any) -> None:
    vm = await api.create()
    assert_problem(await api.http.post(f"/vms/{vm['id']}/actions/stop", json=body), 422, "invalid_request")
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"


@pytest.mark.parametrize("action", ["explode", "START", "start%00", "", "delete"])
async def test_actions_that_are_none(api: Api, action: str) -> None:
    vm = await api.create()
    response = await api.http.post(f"/vms/{vm['id']}/actions/{action}")
    assert response.status_code in (404, 422)
    assert_problem(response, response.status_code)


async def test_empty_bodies_mean_the_defaults(api: Api) -> None:
    vm = await api.create()
    for options in ({}, {"json": {}}, {"content": b"", "headers": {"Content-Type": "application/json"}}):
        response = await api.http.post(f"/vms/{vm['name']}/actions/reboot", **options)
        assert response.status_code == 200, response.text


async def test_delete_frees_everything_at_once(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create(cpu=2, ram_mib=128, disk_gib=7)
    claimed = await database.fetchrow("select sum(cpu_claimed), sum(ram_claimed_mib) from nodes")
    assert tuple(claimed) == (2, 128)
    assert await database.fetchval("select sum(claimed_gib) from pools") == 7
    assert await database.fetchval("select count(*) from addresses where vm_id is not null") == 1
    response = await api.http.delete(f"/vms/{vm['name']}")
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await api.http.get(f"/vms/{vm['id']}"), 404, "not_found")
    assert_problem(await api.http.get(f"/vms/{vm['name']}"), 404, "not_found")
    assert_problem(await api.act(vm, "start"), 404, "not_found")
    assert tuple(await database.fetchrow("select sum(cpu_claimed), sum(ram_claimed_mib) from nodes")) == (0, 0)
    assert await database.fetchval("select sum(claimed_gib) from pools") == 0
    assert await database.fetchval("select count(*) from addresses where vm_id is not null") == 0
    for world in fake_stack.worlds.values():
        assert world.names("domains") == world.names("volumes") == world.names("blobs") == []
    again = await api.create(vm["name"])
    assert again["id"] != vm["id"]
    assert again["ip"] != vm["ip"], "an address rests as long as possible"


async def test_a_delete_that_is_not_waited_for(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    with fake_stack.worlds[vm["node"]].fault("before-remove", "sleep 1"):
        response = await api.http.delete(f"/vms/{vm['id']}", headers={"Prefer": "respond-async"})
        assert response.status_code == 202
        assert (response.json()["id"], response.json()["status"]) == (vm["id"], "deleting")
        assert (await api.get(f"/vms/{vm['id']}"))["status"] == "deleting"
        assert_problem(await api.act(vm, "start"), 409, "vm_busy")
        assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    assert (await api.operation(response))["state"] == "succeeded"


async def test_deletes_at_once(api: Api) -> None:
    vm = await api.create()
    for response in await asyncio.gather(*(api.http.delete(f"/vms/{vm['id']}") for _ in range(10))):
        assert response.status_code in (204, 404)
        if response.status_code == 404:
            assert_problem(response, 404, "not_found")
    assert await api.get("/vms") == []


async def test_quick_deletes_without_waiting_are_never_errors(api: Api) -> None:
    for vm in await asyncio.gather(*(api.create() for _ in range(10))):
        response = await api.http.delete(f"/vms/{vm['id']}", headers={"Prefer": "wait=0"})
        assert response.status_code in (202, 204), response.text


async def test_a_vm_that_is_stopped_or_crashed_can_be_deleted(
    api: Api, fake_stack: FakeStack, database: Database
) -> None:
    stopped = (await api.act(await api.create(), "stop")).json()
    crashed = await api.create()
    await set_state(fake_stack, database, crashed, "crashed", "crashed")
    for vm in (stopped, crashed):
        assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
