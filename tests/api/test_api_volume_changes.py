"""Changes of volumes that are repeated, not waited for, at once with others, or that fail."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest
from support.api import Api, new_name
from support.fake_disks import data_of, plugged
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only


async def test_a_repeated_request_has_one_effect(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm, name, key = await api.create(), new_name("volume"), {"idempotency_key": new_name("key")}
    first, again = [await api.post_volume(name, **key) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert_problem(await api.post_volume(name, 2, **key), 422, "idempotency_key_reused")
    volume = first.json()

    async def twice(request: Any) -> None:
        before = await api.all("/operations?limit=1000")
        answers: list[httpx.Response] = [await request() for _ in range(2)]
        answers += await asyncio.gather(*(request() for _ in range(4)))
        assert len({answer.status_code for answer in answers}) == 1, answers
        assert answers[0].status_code in (200, 204)
        assert len({answer.text for answer in answers}) == 1
        assert len(await api.all("/operations?limit=1000")) == len(before) + 1

    await twice(lambda: api.attach(volume, vm, **key))
    await twice(lambda: api.resize(volume, 2, **key))
    assert (await api.disk_claimed())[vm["node"]] == 1 + 2
    await twice(lambda: api.detach(volume, **key))
    await twice(
        lambda: api.http.delete(f"/volumes/{volume['id']}", headers={"Idempotency-Key": key["idempotency_key"]})
    )
    assert_problem(await api.http.delete(f"/volumes/{volume['id']}"), 404, "not_found")
    assert_problem(await api.post_volume(name, **key), 404, "not_found")


async def test_creates_at_once_with_one_key_are_one_volume(api: Api) -> None:
    name, key = new_name("volume"), new_name("key")
    responses = await asyncio.gather(*(api.post_volume(name, idempotency_key=key) for _ in range(10)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["id"] for response in responses}) == 1


async def test_who_does_not_wait_gets_the_operation(api: Api, fake_stack: FakeStack) -> None:
    vm, lazy = await api.create(), {"prefer": "respond-async"}
    made = await api.post_volume(**lazy)
    volume = made.json()
    assert (await api.operation(made)).items() >= {
        "kind": "volume_create", "volume": volume["id"], "vm": None, "snapshot": None, "state": "succeeded",
    }.items()  # fmt: skip
    world = fake_stack.worlds[vm["node"]]
    for method, status, request in (
        ("attach_disk", "attaching", lambda: api.attach(volume, vm, **lazy)),
        ("grow_disk", "in_use", lambda: api.resize(volume, 2, **lazy)),
        ("detach_disk", "detaching", lambda: api.detach(volume, **lazy)),
    ):
        with world.fault(f"before-{method}", "sleep 0.3"):
            response = await request()
            assert (response.status_code, response.json()["status"]) == (202, status)
            assert response.json()["operation"] == int(response.headers["location"].rpartition("/")[2])
            op = await api.operation(response)
        assert (op["state"], op["volume"], op["vm"], op["vm_name"]) == ("succeeded", volume["id"], vm["id"], vm["name"])
    with world.fault("before-remove_volume", "sleep 0.3"):
        gone = await api.http.delete(f"/volumes/{volume['id']}", headers={"Prefer": "respond-async"})
        assert (gone.status_code, gone.json()["status"]) == (202, "deleting")
        assert_problem(await api.attach(volume, vm), 409, "volume_busy")
        assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204, "it joins"
    assert (await api.operation(gone))["state"] == "succeeded"


async def test_ten_vms_want_one_volume(api: Api) -> None:
    vms = await asyncio.gather(*(api.create() for _ in range(10)))
    volume = await api.create_volume(3)
    responses = await asyncio.gather(*(api.attach(volume, vm) for vm in vms))
    assert Counter(response.status_code for response in responses) == {200: 1, 409: 9}
    for response in responses:
        if response.status_code == 409:
            assert assert_problem(response, 409)["code"] in ("volume_in_use", "volume_busy")
    [owner] = [vm for vm in await api.get("/vms") if vm["volumes"]]
    assert (await api.get(f"/volumes/{volume['id']}"))["vm"] == owner["id"]
    assert sum((await api.disk_claimed()).values()) == 10 + 3


async def test_one_change_of_a_vm_at_a_time(api: Api, fake_stack: FakeStack) -> None:
    vm, volume, other = await api.create(), await api.create_volume(), await api.create_volume()
    with fake_stack.worlds[vm["node"]].fault("before-attach_disk", "sleep 0.7"):
        attaching = await api.attach(volume, vm, prefer="wait=0")
        assert "volume_attach" in assert_problem(await api.act(vm, "stop"), 409, "vm_busy")["detail"]
        assert_problem(await api.http.delete(f"/vms/{vm['id']}"), 409, "vm_busy")
        assert_problem(await api.attach(other, vm), 409, "vm_busy")
        assert_problem(await api.detach(volume), 409, "volume_busy")
        assert_problem(await api.resize(volume, 2), 409, "volume_busy")
        assert_problem(await api.post_snapshot(vm), 409, "vm_busy")
        joined = await api.attach(volume, vm)
    assert (joined.status_code, joined.json()["operation"]) == (200, attaching.json()["operation"])
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        stop = await api.http.post(
            f"/vms/{vm['id']}/actions/stop", json={"timeout_s": 600}, headers={"Prefer": "wait=0"}
        )
        assert stop.status_code == 202
        for response in (await api.attach(other, vm), await api.detach(volume), await api.resize(volume, 2)):
            assert "vm_stop" in assert_problem(response, 409, "vm_busy")["detail"]
        assert (await api.act(vm, "poweroff")).status_code == 200
    assert (await api.disk_claimed())[vm["node"]] == 1 + 1


@pytest.mark.parametrize("moment", ["before-ensure_empty_volume", "before-attach_disk", "after-attach_disk"])
async def test_an_attach_that_fails_is_undone(api: Api, fake_stack: FakeStack, database: Database, moment: str) -> None:
    vm, volume, key = await api.create(), await api.create_volume(4), new_name("key")
    world = fake_stack.worlds[vm["node"]]
    with world.fault(moment, "permanent"):
        problem = assert_problem(await api.attach(volume, vm, idempotency_key=key), 500, "operation_failed")
    op = await api.get(f"/operations/{problem['operation']}")
    assert (op["state"], op["kind"], op["volume"]) == ("failed", "volume_attach", volume["id"])
    assert await api.get(f"/volumes/{volume['id']}") == volume | {"operation": op["id"]}, "bound to no pool"
    assert (await api.disk_claimed())[vm["node"]] == 1
    disk = await data_of(fake_stack, database, volume, vm["node"])
    assert not disk.is_stored
    assert disk.name not in await plugged(fake_stack, database, vm)
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"
    assert (await api.attach(volume, vm, idempotency_key=key)).status_code == 200, "the key is free again"


async def test_a_guest_that_holds_on_to_its_disk_keeps_it(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        problem = assert_problem(await api.detach(volume), 409, "device_busy")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert (await api.get(f"/volumes/{volume['id']}")).items() >= {"status": "in_use", "vm": vm["id"]}.items()
    assert (await data_of(fake_stack, database, volume)).name in await plugged(fake_stack, database, vm)
    assert (await api.detach(volume)).status_code == 200


async def test_a_delete_is_tried_until_it_succeeds(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    assert (await api.detach(volume)).status_code == 200
    with fake_stack.worlds[vm["node"]].fault("before-remove_volume", "transient 2"):
        assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204
    assert (await api.disk_claimed())[vm["node"]] == 1


async def test_a_delete_that_can_not_succeed_can_be_asked_for_again(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    assert (await api.detach(volume)).status_code == 200
    with fake_stack.worlds[vm["node"]].fault("before-remove_volume", "permanent"):
        problem = assert_problem(await api.http.delete(f"/volumes/{volume['id']}"), 500, "operation_failed")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "stuck"
    left = await api.get(f"/volumes/{volume['id']}")
    assert (left["status"], left["error"]["code"]) == ("error", "operation_failed")
    assert_problem(await api.attach(volume, vm), 409, "volume_state")
    assert (await api.disk_claimed())[vm["node"]] == 1 + 1
    assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204
    assert (await api.disk_claimed())[vm["node"]] == 1


async def test_a_volume_of_a_node_that_is_away_waits_for_it(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create_on("hv1")
    volume = await api.attached(vm)
    fake_stack.control.stop("internal1")
    try:
        response = await api.detach(volume, prefer="wait=0")
        assert (response.status_code, response.json()["status"]) == (202, "detaching")
    finally:
        fake_stack.control.start("internal1")
        fake_stack.control.wait("internal1")
    assert (await api.operation(response))["state"] == "succeeded"

    async def takes_vms() -> bool:
        return (await api.create())["node"] == "hv1"

    await eventually(takes_vms)


async def test_many_changes_at_once_leave_everything_exact(api: Api, fake_stack: FakeStack, database: Database) -> None:
    chance = random.Random(1)
    vms = [(await api.create())["id"] for _ in range(4)]
    volumes = [(await api.create_volume())["id"] for _ in range(6)]
    answers: list[httpx.Response] = []

    async def change() -> None:
        volume = {"id": chance.choice(volumes[-6:])}
        vm = {"id": chance.choice(vms[-4:])}
        match chance.randrange(10):
            case 0 | 1 | 2 | 3:
                answers.append(await api.attach(volume, vm, delete_with_vm=chance.random() < 0.3))
            case 4 | 5 | 6:
                answers.append(await api.detach(volume))
            case 7:
                answers.append(await api.resize(volume, chance.randrange(1, 9)))
            case 8:
                answers.append(await api.http.delete(f"/volumes/{volume['id']}"))
                answers.append(await api.post_volume(size_gib=chance.randrange(1, 4)))
                volumes.append(answers[-1].json()["id"])
            case _:
                answers.append(await api.http.delete(f"/vms/{vm['id']}"))
                answers.append(await api.post_vm(volumes=[{"name": new_name("data"), "size_gib": 2}]))
                vms.append(answers[-1].json()["id"])

    async def several() -> None:
        for _ in range(15):
            await change()

    await asyncio.gather(*(several() for _ in range(8)))
    found = Counter((answer.status_code, "" if answer.is_success else answer.json()["code"]) for answer in answers)
    assert {status for status, _ in found} <= {200, 201, 204, 404, 409, 422}, found
    assert {code for status, code in found if status == 422} <= {"unknown_vm", "size_out_of_range"}, found
    assert found[200, ""] > 15, found
    rows = await database.fetch(
        """select p.node, p.claimed_gib,
                  (select coalesce(sum(disk_gib), 0) from vms where pool_id = p.id) as of_vms,
                  (select coalesce(sum(size_gib), 0) from volumes where pool_id = p.id) as of_volumes from pools p"""
    )
    for row in rows:
        assert row["claimed_gib"] == row["of_vms"] + row["of_volumes"]
        here = await database.fetch(
            """select x.uuid, x.size_gib from volumes x join pools p on p.id = x.pool_id where p.node = $1""",
            row["node"],
        )
        world = fake_stack.worlds[row["node"]]
        assert {f"{uuid}-data" for uuid, _ in here} == {one for one in world.names("volumes") if one.endswith("-data")}
        drift = await api.http.post(f"/nodes/{row['node']}/drift/clean")
        assert drift.json()["differences"] == []
    for volume in await api.all("/volumes"):
        assert volume["status"] == ("in_use" if volume["vm"] else "available")
