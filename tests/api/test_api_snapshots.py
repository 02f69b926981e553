"""Snapshots: all disks of a VM at one moment, and back to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from support.api import Api, new_name
from support.fake_disks import data_of, root_of
from support.fake_stack import FakeStack
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only
KEYS = {"id", "name", "status", "consistency", "vm", "vm_name", "disks", "created_at", "operation"}


async def test_a_snapshot_from_its_create_to_its_delete(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    volume = await api.attached(vm, 3)
    disks = [await root_of(fake_stack, database, vm), await data_of(fake_stack, database, volume)]
    response = await api.post_snapshot(vm, "before")
    assert response.status_code == 201, response.text
    snapshot = response.json()
    assert snapshot.keys() == KEYS
    path = f"/vms/{vm['id']}/snapshots"
    assert response.headers["location"] == f"/api/v1{path}/{snapshot['id']}"
    assert (snapshot["name"], snapshot["status"], snapshot["consistency"]) == ("before", "available", "crash")
    assert (snapshot["vm"], snapshot["vm_name"]) == (vm["id"], vm["name"])
    assert snapshot["disks"] == [{"volume": None, "size_gib": 1}, {"volume": volume["name"], "size_gib": 3}]
    assert await api.get(f"{path}/before") == await api.get(f"{path}/{snapshot['id']}") == snapshot
    assert await api.get(f"/vms/{vm['name']}/snapshots") == await api.get("/snapshots") == [snapshot]
    op = await api.get(f"/operations/{snapshot['operation']}")
    assert (op["kind"], op["vm"], op["snapshot"], op["volume"]) == ("snapshot_create", vm["id"], snapshot["id"], None)
    assert [len(disk.facts["snapshots"]) for disk in disks] == [1, 1]
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3

    response = await api.http.delete(f"{path}/before")
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await api.http.get(f"{path}/{snapshot['id']}"), 404, "not_found")
    assert_problem(await api.http.delete(f"{path}/before"), 404, "not_found")
    assert await api.get("/snapshots") == []
    assert [disk.facts["snapshots"] for disk in disks] == [{}, {}]
    kinds = [op["kind"] for op in await api.get("/operations?limit=9") if op["snapshot"] == snapshot["id"]]
    assert kinds == ["snapshot_delete", "snapshot_create"]


async def test_a_vm_that_is_off_is_whole(api: Api) -> None:
    vm = (await api.act(await api.create(), "poweroff")).json()
    assert (await api.snapshot(vm))["consistency"] == "filesystem"
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "stopped"


@pytest.mark.parametrize("running", [True, False])
async def test_all_disks_get_back_what_they_held(
    api: Api, fake_stack: FakeStack, database: Database, running: bool
) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    disks = [await root_of(fake_stack, database, vm), await data_of(fake_stack, database, volume)]
    for disk in disks:
        disk.write("old")
    snapshot = await api.snapshot(vm)
    late = await api.attached(vm)
    disks.append(await data_of(fake_stack, database, late))
    for disk in disks:
        disk.write("new")
    assert (await api.resize(volume, 4)).status_code == 200
    if running:
        problem = assert_problem(await api.restore(snapshot), 409, "vm_state")
        assert "Stop it first" in problem["detail"] and "force" in problem["detail"]
        assert [disk.content for disk in disks] == ["new"] * 3
    else:
        assert (await api.act(vm, "poweroff")).status_code == 200
    response = await api.restore(snapshot, force=running)
    assert response.status_code == 200, response.text
    assert response.json() == await api.get(f"/vms/{vm['id']}/snapshots/{snapshot['id']}")
    assert response.json() == snapshot | {"operation": response.json()["operation"]}
    assert [disk.content for disk in disks] == ["old", "old", "new"], "the last one is not part of it"
    assert disks[1].facts["size_gib"] == 4, "disks never shrink"
    after = await api.get(f"/vms/{vm['id']}")
    assert after["status"] == ("running" if running else "stopped")
    assert after["operation"] == response.json()["operation"]
    if not running:
        assert (await api.restore(snapshot, force=True)).status_code == 200
        assert (await api.get(f"/vms/{vm['id']}"))["status"] == "stopped", "what was off stays off"


async def test_a_paused_or_crashed_vm(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    snapshot = await api.snapshot(vm)
    uuid = await database.fetchval("select uuid from vms where id = $1", vm["id"])
    world = fake_stack.worlds[vm["node"]]
    for state, status in (("paused", 409), ("crashed", 200)):
        world.write("domains", str(uuid), world.read("domains", str(uuid)) | {"state": state})
        await database.execute("update vms set status = $2 where id = $1", vm["id"], state)
        assert (await api.restore(snapshot)).status_code == status
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "stopped"


async def test_a_volume_in_a_snapshot_stays_with_its_vm(api: Api) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    first = await api.snapshot(vm, "first")
    problem = assert_problem(await api.detach(volume), 409, "volume_in_use")
    assert "snapshot first" in problem["detail"]
    second = await api.snapshot(vm)
    assert "2 snapshots" in assert_problem(await api.detach(volume), 409, "volume_in_use")["detail"]
    for snapshot in (first, second):
        assert (await api.http.delete(f"/vms/{vm['id']}/snapshots/{snapshot['id']}")).status_code == 204
    assert (await api.detach(volume)).status_code == 200


async def test_snapshots_go_with_their_vm(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    kept = await api.attached(vm, 2)
    disk = await data_of(fake_stack, database, kept)
    await api.snapshot(vm)
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    assert await api.get("/snapshots") == []
    assert disk.facts["snapshots"] == {}
    assert (await api.disk_claimed())[vm["node"]] == 2
    assert (await api.http.delete(f"/volumes/{kept['id']}")).status_code == 204


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "1"}, {"name": "A"}, {"name": None}, {"name": "a\n"}, {"name": "a", "x": 1}, []]
)
async def test_bodies_are_checked(api: Api, body: Any) -> None:
    vm = await api.create()
    assert_problem(await api.http.post(f"/vms/{vm['id']}/snapshots", json=body), 422, "invalid_request")
    assert await api.get("/snapshots") == []


@pytest.mark.parametrize("body", [{"force": 1}, {"force": None}, {"force": "yes"}, {"now": True}, [], "force"], ids=str)
async def test_bodies_of_restores_are_checked(api: Api, body: Any) -> None:
    path = f"/vms/{(await api.create())['id']}/snapshots/1/actions/restore"
    assert_problem(await api.http.post(path, json=body), 422, "invalid_request")


async def test_what_is_not_there(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    theirs = await api.snapshot(other, "theirs")
    for ref in ("none", "99999999", "0", "%00"):
        assert_problem(await api.http.get(f"/vms/{ref}/snapshots"), 404, "not_found")
        assert_problem(await api.http.post(f"/vms/{ref}/snapshots", json={"name": "x1"}), 404, "not_found")
        assert_problem(await api.http.get(f"/vms/{ref}/snapshots/theirs"), 404, "not_found")
    for ref in ("none", "theirs", theirs["id"], "99999999", "%00"):
        path = f"/vms/{vm['id']}/snapshots/{ref}"
        assert_problem(await api.http.get(path), 404, "not_found")
        assert_problem(await api.http.delete(path), 404, "not_found")
        assert_problem(await api.http.post(f"{path}/actions/restore", json={"force": True}), 404, "not_found")


async def test_a_name_is_taken_once_for_each_vm(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    responses = await asyncio.gather(*(api.post_snapshot(vm, "daily") for _ in range(8)))
    assert Counter(response.status_code for response in responses) == {201: 1, 409: 7}
    for response in responses:
        if response.status_code == 409:
            assert assert_problem(response, 409)["code"] in ("name_taken", "vm_busy")
    assert "daily" in assert_problem(await api.post_snapshot(vm, "daily"), 409, "name_taken")["detail"]
    assert (await api.snapshot(other, "daily"))["vm"] == other["id"]


async def test_what_the_state_forbids(api: Api, database: Database) -> None:
    vm = await api.create()
    snapshot = await api.snapshot(vm)
    await database.execute("update snapshots set status = 'error' where id = $1", snapshot["id"])
    assert_problem(await api.restore(snapshot, force=True), 409, "snapshot_state")
    body = {"name": new_name("image"), "vm": vm["name"], "snapshot": snapshot["name"]}
    assert_problem(await api.http.post("/images", json=body), 409, "snapshot_state")
    assert (await api.http.delete(f"/vms/{vm['id']}/snapshots/{snapshot['id']}")).status_code == 204
    await database.execute("update vms set status = 'error' where id = $1", vm["id"])
    assert_problem(await api.post_snapshot(vm), 409, "vm_state")
    assert await api.get("/snapshots") == []


async def test_a_snapshot_that_the_pool_has_lost(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    snapshot = await api.snapshot(vm)
    (await root_of(fake_stack, database, vm)).forget_snapshots()
    problem = assert_problem(await api.restore(snapshot, force=True), 409, "snapshot_missing")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"
    assert (await api.http.delete(f"/vms/{vm['id']}/snapshots/{snapshot['id']}")).status_code == 204
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204


async def test_a_create_that_fails_is_undone(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    volume = await api.attached(vm)
    disks = [await root_of(fake_stack, database, vm), await data_of(fake_stack, database, volume)]
    with fake_stack.worlds[vm["node"]].fault("after-ensure_snapshot", "permanent"):
        problem = assert_problem(await api.post_snapshot(vm), 500, "operation_failed")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert await api.get("/snapshots") == []
    assert [disk.facts["snapshots"] for disk in disks] == [{}, {}]
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"


async def test_one_change_at_a_time_and_repeats_join(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    world, path = fake_stack.worlds[vm["node"]], f"/vms/{vm['id']}/snapshots"
    lazy = {"Prefer": "respond-async"}

    async def watched(method: str, status: str, request: Callable[[dict[str, str]], Awaitable[httpx.Response]]) -> Any:
        with world.fault(f"before-{method}", "sleep 0.4"):
            first = await request(lazy)
            assert (first.status_code, first.json()["status"]) == (202, status), first.text
            assert_problem(await api.act(vm, "reboot"), 409, "vm_busy")
            assert_problem(await api.post_snapshot(vm), 409, "vm_busy")
            joined = await request({})
            op = await api.operation(first)
        assert op["state"] == "succeeded"
        assert op["snapshot"] == first.json()["id"]
        assert op["id"] == first.json()["operation"]
        return joined

    key = {"Idempotency-Key": new_name("key")}
    taken = await watched(
        "ensure_snapshot", "creating", lambda headers: api.http.post(path, json={"name": "s1"}, headers=headers | key)
    )
    assert (taken.status_code, taken.json()["status"]) == (201, "available")
    one = f"{path}/{taken.json()['id']}"
    restored = await watched(
        "roll_back",
        "restoring",
        lambda headers: api.http.post(f"{one}/actions/restore", json={"force": True}, headers=headers),
    )
    assert (restored.status_code, restored.json()["status"]) == (200, "available")
    gone = await watched("remove_snapshot", "deleting", lambda headers: api.http.delete(one, headers=headers))
    assert gone.status_code == 204
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"


async def test_a_repeated_request_has_one_effect(api: Api) -> None:
    vm, headers = await api.create(), {"Idempotency-Key": new_name("key")}
    path = f"/vms/{vm['id']}/snapshots"

    async def twice(request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        before = len(await api.get(f"/operations?vm={vm['id']}"))
        first, again = await request(), await request()
        assert (first.status_code, first.text) == (again.status_code, again.text)
        assert len(await api.get(f"/operations?vm={vm['id']}")) == before + 1
        return first

    snapshot = await twice(lambda: api.http.post(path, json={"name": "s1"}, headers=headers))
    assert snapshot.status_code == 201
    assert_problem(await api.http.post(path, json={"name": "s2"}, headers=headers), 422, "idempotency_key_reused")
    one = f"{path}/{snapshot.json()['id']}"
    restore = f"{one}/actions/restore"
    assert (await twice(lambda: api.http.post(restore, json={"force": True}, headers=headers))).status_code == 200
    assert_problem(await api.http.post(restore, headers=headers), 422, "idempotency_key_reused")
    assert (await twice(lambda: api.http.delete(one, headers=headers))).status_code == 204
    assert_problem(await api.http.delete(one), 404, "not_found")


async def test_lists_come_in_pages(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    mine = [(await api.snapshot(vm))["id"] for _ in range(3)]
    theirs = [(await api.snapshot(other))["id"] for _ in range(2)]
    for path, wanted in (("/snapshots", [*mine, *theirs]), (f"/vms/{vm['id']}/snapshots", mine)):
        for limit in (1, 2, 5):
            pages = [page async for page in api.pages(f"{path}?limit={limit}")]
            assert [one["id"] for page in pages for one in page] == wanted
            assert {len(page) for page in pages[:-1]} <= {limit}
        assert "link" not in (await api.http.get(f"{path}?limit={len(wanted)}")).headers
        assert_problem(await api.http.get(f"{path}?limit=0"), 422, "invalid_request")
        assert_problem(await api.http.get(f"{path}?cursor=x"), 400, "bad_cursor")


async def test_projects_do_not_see_each_others_snapshots(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    snapshot = await api.snapshot(vm)
    async with Api.open(fake_stack.url, await fake_stack.new_project()) as other:
        assert await other.get("/snapshots") == []
        for response in (
            await other.http.get(f"/vms/{vm['id']}/snapshots"),
            await other.http.get(f"/vms/{vm['id']}/snapshots/{snapshot['id']}"),
            await other.http.delete(f"/vms/{vm['id']}/snapshots/{snapshot['id']}"),
            await other.post_snapshot(vm),
            await other.restore(snapshot, force=True),
        ):
            assert_problem(response, 404, "not_found")
        body = {"name": new_name("image"), "vm": str(vm["id"])}
        assert_problem(await other.http.post("/images", json=body), 422, "unknown_vm")
    assert await api.get("/snapshots") == [snapshot]
