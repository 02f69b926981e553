"""Volumes: their life, what is refused, and that the pool's claim is exact at every moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only
KEYS = {
    *("id", "name", "status", "size_gib", "vm", "vm_name", "device", "pool", "node", "delete_with_vm"),
    *("created_at", "operation", "error"),
}


async def stored(database: Database, volume: dict[str, Any]) -> str:
    """A volume's name in its pool."""
    return f"{await database.fetchval('select uuid from volumes where id = $1', volume['id'])}-data"


async def disks(stack: FakeStack, database: Database, vm: dict[str, Any], half: str = "live") -> set[str]:
    """Paths' last parts of the disks that a running guest, or its definition, has."""
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    domain = stack.worlds[vm["node"]].read("domains", str(uuid))
    return {disk["path"].rpartition("/")[2] for disk in domain.get(half, {}).values()}


async def test_a_volume_from_its_create_to_its_delete(api: Api, fake_stack: FakeStack, database: Database) -> None:
    response = await api.post_volume("data-1", 3)
    assert response.status_code == 201, response.text
    volume = response.json()
    assert volume.keys() == KEYS
    assert response.headers["location"] == f"/api/v1/volumes/{volume['id']}"
    assert (volume["name"], volume["status"], volume["size_gib"]) == ("data-1", "available", 3)
    assert [volume[key] for key in ("vm", "vm_name", "device", "pool", "node", "error")] == [None] * 6
    assert await api.get(f"/volumes/{volume['id']}") == await api.get("/volumes/data-1") == volume
    assert await api.get("/volumes") == [volume]
    assert set((await api.disk_claimed()).values()) == {0}, "nothing is stored before it is attached"

    vm = await api.create()
    assert vm["volumes"] == []
    response = await api.attach(volume, vm)
    assert response.status_code == 200, response.text
    plugged = response.json()
    assert plugged == await api.get("/volumes/data-1")
    device = f"/dev/disk/by-id/virtio-volume-{volume['id']}"
    assert plugged.items() >= {"status": "in_use", "vm": vm["id"], "vm_name": vm["name"], "device": device}.items()
    assert (plugged["node"], plugged["delete_with_vm"]) == (vm["node"], False)
    assert vm["node"] in plugged["pool"]
    seen = (await api.get(f"/vms/{vm['id']}"))["volumes"]
    assert seen == [{"id": volume["id"], "name": "data-1", "size_gib": 3, "device": device}]
    name = await stored(database, volume)
    world = fake_stack.worlds[vm["node"]]
    assert world.read("volumes", name)["size_gib"] == 3
    assert name in await disks(fake_stack, database, vm) & await disks(fake_stack, database, vm, "defined")
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3

    response = await api.detach(volume)
    assert (response.status_code, response.json()["status"]) == (200, "available")
    assert [response.json()[key] for key in ("vm", "vm_name", "device")] == [None] * 3
    assert response.json()["node"] == vm["node"], "it stays where it is"
    assert name not in await disks(fake_stack, database, vm) | await disks(fake_stack, database, vm, "defined")
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3

    response = await api.http.delete("/volumes/data-1")
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await api.http.get("/volumes/data-1"), 404, "not_found")
    assert name not in world.names("volumes")
    assert (await api.disk_claimed())[vm["node"]] == 1
    kinds = [op["kind"] for op in await api.get("/operations?limit=5") if op["volume"] == volume["id"]]
    assert kinds == ["volume_delete", "volume_detach", "volume_attach", "volume_create"]


async def test_a_volume_that_was_never_attached_is_deleted(api: Api) -> None:
    volume = await api.create_volume()
    assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204
    assert await api.get("/volumes") == []


async def test_a_stopped_vm_gets_its_volume_at_its_start(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = (await api.act(await api.create(), "poweroff")).json()
    volume = await api.attached(vm)
    assert await stored(database, volume) in await disks(fake_stack, database, vm, "defined")
    assert (await api.act(vm, "start")).json()["volumes"][0]["id"] == volume["id"]
    assert await stored(database, volume) in await disks(fake_stack, database, vm)
    assert (await api.act(vm, "poweroff")).status_code == 200
    assert (await api.detach(volume)).json()["status"] == "available"
    assert (await api.act(vm, "start")).json()["volumes"] == []
    assert await stored(database, volume) not in await disks(fake_stack, database, vm)


@pytest.mark.parametrize("size", [0, -1, 65_537, 2**63, 10**40, "1", 1.0, True, None, [1], {}], ids=str)
async def test_sizes_are_integers_in_range(api: Api, size: Any) -> None:
    problem = assert_problem(
        await api.http.post("/volumes", json={"name": "data", "size_gib": size}), 422, "invalid_request"
    )
    assert "size_gib" in problem["detail"]
    volume = await api.create_volume()
    assert_problem(await api.resize(volume, size), 422, "invalid_request")
    assert [one["size_gib"] for one in await api.get("/volumes")] == [1]


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "123", "a" * 64, "ü", "a\n", "a\x00", 7, None]
)
async def test_names_that_are_no_labels(api: Api, name: Any) -> None:
    problem = assert_problem(
        await api.http.post("/volumes", json={"name": name, "size_gib": 1}), 422, "invalid_request"
    )
    assert "name" in problem["detail"]
    assert await api.get("/volumes") == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"name": "data"}),
        ("", {"size_gib": 1}),
        ("", {"name": "data", "size_gib": 1, "vm": "x1"}),
        ("", {"name": "data", "size_gib": 1, "delete_with_vm": True}),
        ("", []),
        ("/1/actions/attach", {}),
        ("/1/actions/attach", {"vm": None}),
        ("/1/actions/attach", {"vm": 1}),
        ("/1/actions/attach", {"vm": ""}),
        ("/1/actions/attach", {"vm": "x" * 64}),
        ("/1/actions/attach", {"vm": "a\x00"}),
        ("/1/actions/attach", {"vm": "x1", "delete_with_vm": "yes"}),
        ("/1/actions/attach", {"vm": "x1", "slot": 2}),
        ("/1/actions/resize", {}),
        ("/1/actions/resize", {"size_gib": 2, "force": True}),
    ],
    ids=str,
)
async def test_bodies_are_checked(api: Api, path: str, body: Any) -> None:
    assert_problem(await api.http.post(f"/volumes{path}", json=body), 422, "invalid_request")


async def test_what_is_not_there(api: Api) -> None:
    vm, volume = await api.create(), await api.create_volume()
    for ref in ("none", "99999999", "0", "A", "%00"):
        assert_problem(await api.http.get(f"/volumes/{ref}"), 404, "not_found")
        assert_problem(await api.http.delete(f"/volumes/{ref}"), 404, "not_found")
        assert_problem(await api.http.post(f"/volumes/{ref}/actions/detach"), 404, "not_found")
        assert_problem(await api.http.post(f"/volumes/{ref}/actions/attach", json={"vm": vm["name"]}), 404, "not_found")
        assert_problem(await api.http.post(f"/volumes/{ref}/actions/resize", json={"size_gib": 2}), 404, "not_found")
    for ref in ("none", "99999999", "0", "Web 1"):
        problem = assert_problem(
            await api.http.post(f"/volumes/{volume['id']}/actions/attach", json={"vm": ref}), 422, "unknown_vm"
        )
        assert problem["errors"][0]["field"] == "vm"
    assert (await api.get(f"/volumes/{volume['id']}"))["status"] == "available"


async def test_a_name_is_taken_once(api: Api) -> None:
    name = new_name("volume")
    responses = await asyncio.gather(*(api.post_volume(name) for _ in range(10)))
    assert Counter(response.status_code for response in responses) == {201: 1, 409: 9}
    for response in responses:
        if response.status_code == 409:
            assert name in assert_problem(response, 409, "name_taken")["detail"]
    assert len(await api.get("/volumes")) == 1
    assert (await api.http.delete(f"/volumes/{name}")).status_code == 204
    assert (await api.post_volume(name)).status_code == 201


async def test_what_the_state_forbids(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    volume = await api.create_volume()
    assert "not attached" in assert_problem(await api.detach(volume), 409, "volume_state")["detail"]
    assert (await api.attach(volume, vm)).status_code == 200
    claimed = await api.disk_claimed()
    for target in (vm, other):
        assert_problem(await api.attach(volume, target), 409, "volume_in_use")
    problem = assert_problem(await api.http.delete(f"/volumes/{volume['id']}"), 409, "volume_in_use")
    assert "Detach it first" in problem["detail"]
    assert await api.disk_claimed() == claimed
    assert (await api.get(f"/volumes/{volume['id']}"))["vm"] == vm["id"]


async def test_what_is_not_as_it_should_be(api: Api, database: Database) -> None:
    vm, volume = await api.create(), await api.create_volume()
    await database.execute("update vms set status = 'error' where id = $1", vm["id"])
    assert_problem(await api.attach(volume, vm), 409, "vm_state")
    await database.execute("update volumes set status = 'error' where id = $1", volume["id"])
    assert_problem(await api.attach(volume, await api.create()), 409, "volume_state")
    assert_problem(await api.resize(volume, 2), 409, "volume_state")
    assert (await api.disk_claimed())[vm["node"]] in (1, 2)
    assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204


async def test_a_vm_has_eight_volumes_at_most(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    volumes = [await api.attached(vm) for _ in range(8)]
    ninth = await api.create_volume()
    problem = assert_problem(await api.attach(ninth, vm), 422, "too_many_volumes")
    assert "8" in problem["detail"]
    assert (await api.disk_claimed())[vm["node"]] == 1 + 8
    assert (await api.get(f"/volumes/{ninth['id']}"))["pool"] is None
    assert len(await disks(fake_stack, database, vm)) == 2 + 8
    assert (await api.detach(volumes[3])).status_code == 200
    assert (await api.attach(ninth, vm)).status_code == 200, "into the slot that is free"
    assert {one["id"] for one in (await api.get(f"/vms/{vm['id']}"))["volumes"]} == {
        one["id"] for one in (*volumes[:3], *volumes[4:], ninth)
    }


async def test_volumes_grow_wherever_they_are(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    world = fake_stack.worlds[vm["node"]]
    volume = await api.create_volume()

    async def grow(size_gib: int) -> None:
        response = await api.resize(volume, size_gib)
        assert (response.status_code, response.json()["size_gib"]) == (200, size_gib)
        assert (await api.get(f"/volumes/{volume['id']}"))["size_gib"] == size_gib

    async def claims(volume_gib: int) -> bool:
        return (await api.disk_claimed())[vm["node"]] == 1 + volume_gib

    await grow(2)
    assert await claims(0), "nothing is stored yet"
    assert (await api.attach(volume, vm)).status_code == 200
    name = await stored(database, volume)
    assert world.read("volumes", name)["size_gib"] == 2
    await grow(3)
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    assert world.read("domains", str(uuid))["live"]["2"]["size_bytes"] == 3 * 2**30, "by the running hypervisor"
    assert (await api.get(f"/vms/{vm['id']}"))["volumes"][0]["size_gib"] == 3
    assert (await api.act(vm, "poweroff")).status_code == 200
    await grow(4)
    assert world.read("volumes", name)["size_gib"] == 4
    assert (await api.detach(volume)).status_code == 200
    await grow(5)
    assert world.read("volumes", name)["size_gib"] == 5
    assert await claims(5)
    assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204
    assert await claims(0)


async def test_volumes_never_shrink(api: Api) -> None:
    vm = await api.create()
    for volume in (await api.create_volume(5), await api.attached(vm, 5)):
        problem = assert_problem(await api.resize(volume, 4), 422, "size_out_of_range")
        assert "5 GiB" in problem["detail"]
        assert problem["errors"] == [{"field": "size_gib", "message": "must be at least 5"}]
        before = await api.get("/operations")
        key = new_name("key")
        for _ in range(2):
            response = await api.resize(volume, 5, idempotency_key=key)
            assert (response.status_code, response.json()["size_gib"]) == (200, 5)
        assert await api.get("/operations") == before, "nothing was left to do"
    assert (await api.disk_claimed())[vm["node"]] == 1 + 5


async def test_resizes_at_once(api: Api) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    responses = await asyncio.gather(*(api.resize(volume, 2 + n) for n in range(6)))
    assert 200 in {response.status_code for response in responses}
    for response in responses:
        if response.status_code == 422:
            assert_problem(response, 422, "size_out_of_range")
        elif response.status_code != 200:
            assert assert_problem(response, 409)["code"] in ("volume_busy", "vm_busy")
    size = (await api.get(f"/volumes/{volume['id']}"))["size_gib"]
    assert size == max(response.json()["size_gib"] for response in responses if response.status_code == 200)
    assert (await api.disk_claimed())[vm["node"]] == 1 + size


async def test_a_volume_stays_with_its_node(api: Api) -> None:
    here, there = await api.create_on("hv1"), await api.create_on("hv2")
    volume = await api.attached(here)
    before = await api.disk_claimed()
    assert (await api.detach(volume)).status_code == 200
    problem = assert_problem(await api.attach(volume, there), 409, "volume_elsewhere")
    assert "hv1" in problem["detail"] and "hv2" in problem["detail"]
    assert await api.disk_claimed() == before
    assert (await api.attach(volume, await api.create_on("hv1"))).status_code == 200


async def test_a_full_pool_takes_no_volume(api: Api, fake_stack: FakeStack) -> None:
    async with fake_stack.pools_of(10):
        vm = await api.create(disk_gib=4)
        assert_problem(await api.post_volume(size_gib=11), 422, "size_out_of_range")
        volume = await api.create_volume(7)
        before = await api.disk_claimed()
        assert_problem(await api.attach(volume, vm), 507, "no_capacity")
        assert_problem(await api.resize(volume, 11), 422, "size_out_of_range")
        assert await api.disk_claimed() == before
        assert (await api.get(f"/volumes/{volume['id']}")).items() >= {"status": "available", "pool": None}.items()
        fitting = await api.attached(vm, 5)
        for size_gib, status, code in ((7, 507, "no_capacity"), (11, 422, "size_out_of_range")):
            assert_problem(await api.resize(fitting, size_gib), status, code)
        assert (await api.disk_claimed())[vm["node"]] == 9
        assert (await api.resize(fitting, 6)).status_code == 200
        assert (await api.disk_claimed())[vm["node"]] == 10


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
    assert await stored(database, volume) not in {*world.names("volumes"), *await disks(fake_stack, database, vm)}
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"
    assert (await api.attach(volume, vm, idempotency_key=key)).status_code == 200, "the key is free again"


async def test_a_guest_that_holds_on_to_its_disk_keeps_it(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        problem = assert_problem(await api.detach(volume), 409, "device_busy")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert (await api.get(f"/volumes/{volume['id']}")).items() >= {"status": "in_use", "vm": vm["id"]}.items()
    assert await stored(database, volume) in await disks(fake_stack, database, vm)
    assert (await api.detach(volume)).status_code == 200


async def test_a_resize_that_fails_gives_the_claim_back(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    volume = await api.attached(vm, 2)
    with fake_stack.worlds[vm["node"]].fault("before-grow_disk", "permanent"):
        assert_problem(await api.resize(volume, 9), 500, "operation_failed")
    assert (await api.get(f"/volumes/{volume['id']}")).items() >= {"status": "in_use", "size_gib": 2}.items()
    assert (await api.disk_claimed())[vm["node"]] == 1 + 2
    assert (await api.resize(volume, 9)).status_code == 200


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


@pytest.mark.parametrize("goes", [True, False])
async def test_volumes_go_or_stay_when_their_vm_is_deleted(
    api: Api, fake_stack: FakeStack, database: Database, goes: bool
) -> None:
    vm = await api.create()
    volume = await api.attached(vm, 3, delete_with_vm=goes)
    assert volume["delete_with_vm"] is goes
    name = await stored(database, volume)
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    response = await api.http.get(f"/volumes/{volume['id']}")
    assert (name in fake_stack.worlds[vm["node"]].names("volumes")) is not goes
    assert (await api.disk_claimed())[vm["node"]] == (0 if goes else 3)
    if goes:
        assert_problem(response, 404, "not_found")
    else:
        left = response.json()
        assert left.items() >= {"status": "available", "vm": None, "delete_with_vm": False, "node": vm["node"]}.items()
        assert (await api.attach(left, await api.create_on(vm["node"]))).status_code == 200


async def test_lists_come_in_pages_and_filters_hold(api: Api) -> None:
    vm, bare = await api.create(), await api.create()
    plugged = [await api.attached(vm) for _ in range(3)]
    free = [await api.create_volume() for _ in range(4)]
    everyone = [volume["id"] for volume in (*plugged, *free)]

    async def ids(query: str) -> list[int]:
        return [volume["id"] for volume in await api.all(f"/volumes?{query}")]

    for limit, wanted in ((3, [3, 3, 1]), (7, [7]), (1, [1] * 7)):
        pages = [page async for page in api.pages(f"/volumes?limit={limit}")]
        assert [len(page) for page in pages] == wanted
        assert [volume["id"] for page in pages for volume in page] == everyone
    assert "link" not in (await api.http.get("/volumes?limit=7")).headers
    assert await ids("status=in_use") == await ids(f"vm={vm['id']}") == await ids(f"vm={vm['name']}") == everyone[:3]
    assert await ids(f"vm={vm['id']}&status=in_use&limit=1") == everyone[:3], "a link keeps its filters"
    assert await ids("status=available&limit=2") == everyone[3:]
    assert await ids("status=error") == await ids(f"vm={bare['id']}") == await ids("vm=nobody") == []
    for query in ("status=flying", "status=", "vm=", "vm=A", "vm=%00", f"vm={'x' * 64}", "limit=0", "limit=1001"):
        assert_problem(await api.http.get(f"/volumes?{query}"), 422, "invalid_request")
    assert_problem(await api.http.get("/volumes?cursor=x"), 400, "bad_cursor")


async def test_projects_do_not_see_each_others_volumes(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    async with Api.open(fake_stack.url, await fake_stack.new_project()) as other:
        assert await other.get("/volumes") == await other.get(f"/volumes?vm={vm['id']}") == []
        assert_problem(await other.http.get(f"/volumes/{volume['name']}"), 404, "not_found")
        for response in (
            await other.http.get(f"/volumes/{volume['id']}"),
            await other.http.delete(f"/volumes/{volume['id']}"),
            await other.detach(volume),
            await other.resize(volume, 9),
            await other.attach(volume, vm),
        ):
            assert_problem(response, 404, "not_found")
        theirs = (await other.post_volume(volume["name"])).json()
        assert theirs["id"] != volume["id"], "names are a project's own"
        assert_problem(await other.attach(theirs, vm), 422, "unknown_vm")
        assert_problem(await api.http.get(f"/volumes/{theirs['id']}"), 404, "not_found")
        await other.delete_all_vms()
    assert await api.get("/volumes") == [volume]


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
