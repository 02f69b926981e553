"""POST /images with a VM: a copy of its system disk, as it is now or as a snapshot has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.api import Api, new_name
from support.fake_disks import root_of
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only


@pytest.fixture(autouse=True)
async def no_image_stays(api: Api) -> AsyncIterator[None]:
    yield

    async def is_tidy() -> bool:
        await api.delete_all_vms()
        left = [image for image in await api.get("/images?limit=1000") if image["name"] != "tiny"]
        await asyncio.gather(*(api.http.delete(f"/images/{image['id']}") for image in left))
        return not left

    await eventually(is_tidy)


async def capture(api: Api, vm: Any, name: str = "", *, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"name": name or new_name("image"), "vm": str(vm["id"]), **fields}
    return await api.http.post("/images", json=body, headers=headers)


async def test_an_image_of_a_running_vm(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create(disk_gib=3)
    (await root_of(fake_stack, database, vm)).write("as it is now")
    response = await capture(api, vm, "mine")
    assert response.status_code == 201, response.text
    image = response.json()
    assert response.headers["location"] == f"/api/v1/images/{image['id']}"
    assert (image["name"], image["status"], image["format"], image["min_disk_gib"]) == ("mine", "available", "qcow2", 3)
    assert image["checksum"].startswith("sha256:") and image["size_bytes"] > 0
    assert await api.get("/images/mine") == image
    op = await api.get(f"/operations/{image['operation']}")
    assert (op["kind"], op["state"], op["vm"], op["image"]) == ("image_capture", "succeeded", vm["id"], image["id"])
    assert op["result"]["consistency"] == "crash"
    assert (await root_of(fake_stack, database, vm)).facts["snapshots"] == {}, "its own snapshot is gone"
    assert await api.get("/snapshots") == []
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"
    assert_problem(await api.post_vm(image="mine", disk_gib=2), 422, "size_out_of_range")
    copy = await api.create_on(vm["node"], image="mine", disk_gib=3)
    assert (await root_of(fake_stack, database, copy)).content == "as it is now"
    assert_problem(await api.http.delete("/images/mine"), 409, "image_in_use")
    other = await api.create_on({"hv1": "hv2", "hv2": "hv1"}[vm["node"]], image="mine", disk_gib=3)
    assert other["image"] == "mine", "the other node has fetched it"


async def test_an_image_of_a_snapshot(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
    (await root_of(fake_stack, database, vm)).write("then")
    snapshot = await api.snapshot(vm, "before")
    (await root_of(fake_stack, database, vm)).write("now")
    for ref in ("before", str(snapshot["id"])):
        response = await capture(api, vm, snapshot=ref)
        assert response.status_code == 201, response.text
    copy = await api.create_on(vm["node"], image=response.json()["name"])
    assert (await root_of(fake_stack, database, copy)).content == "then"
    assert await api.get("/snapshots") == [snapshot], "it stays"
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204, "the image depends on nothing"
    assert (await api.create(image=response.json()["name"]))["status"] == "running"


async def test_a_vm_that_is_off(api: Api) -> None:
    vm = (await api.act(await api.create(), "poweroff")).json()
    response = await capture(api, vm)
    assert (await api.get(f"/operations/{response.json()['operation']}"))["result"]["consistency"] == "filesystem"
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "stopped"


@pytest.mark.parametrize(
    "fields",
    [
        {"vm": None},
        {"vm": ""},
        {"vm": 1},
        {"vm": "a\x00"},
        {"vm": "x" * 64},
        {"url": "http://example.org/x.qcow2"},
        {"checksum": "sha256:" + "0" * 64},
        {"format": "raw"},
        {"snapshot": None},
        {"snapshot": ""},
        {"snapshot": "a\x00"},
        {"snapshot": 1},
        {"name": "123"},
        {"name": "A"},
        {"disk": "root"},
    ],
    ids=str,
)
async def test_bodies_are_checked(api: Api, fields: dict[str, Any]) -> None:
    body = {"name": "mine", "vm": "x1", **fields}
    assert_problem(await api.http.post("/images", json=body), 422, "invalid_request")


@pytest.mark.parametrize("body", [{"name": "mine"}, {"name": "mine", "snapshot": "before"}], ids=str)
async def test_a_source_is_needed(api: Api, body: dict[str, str]) -> None:
    assert_problem(await api.http.post("/images", json=body), 422, "invalid_request")


async def test_what_is_not_there(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    await api.snapshot(other, "theirs")
    for ref in ("none", "99999999", "0", "My VM"):
        problem = assert_problem(await capture(api, {"id": ref}), 422, "unknown_vm")
        assert problem["errors"][0]["field"] == "vm"
    for ref in ("none", "99999999", "theirs"):
        problem = assert_problem(await capture(api, vm, snapshot=ref), 422, "unknown_snapshot")
        assert problem["errors"][0]["field"] == "snapshot"
    assert [image["name"] for image in await api.get("/images")] == ["tiny"]


async def test_a_name_is_taken_once(api: Api) -> None:
    assert "tiny" in assert_problem(await capture(api, await api.create(), "tiny"), 409, "name_taken")["detail"]
    vms = await asyncio.gather(*(api.create() for _ in range(5)))
    responses = await asyncio.gather(*(capture(api, vm, "mine") for vm in vms))
    assert Counter(response.status_code for response in responses) == {201: 1, 409: 4}
    for response in responses:
        if response.status_code == 409:
            assert_problem(response, 409, "name_taken")
    assert [image["name"] for image in await api.get("/images")] == ["tiny", "mine"]


async def test_who_does_not_wait_gets_the_operation(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    with fake_stack.worlds[vm["node"]].fault("before-capture_image", "sleep 0.5"):
        response = await capture(api, vm, "mine", headers={"Prefer": "respond-async"})
        assert (response.status_code, response.json()["status"]) == (202, "importing")
        assert_problem(await api.post_vm(image="mine"), 409, "image_not_ready")
        assert_problem(await api.http.delete("/images/mine"), 409, "image_not_ready")
        assert "image_capture" in assert_problem(await api.act(vm, "stop"), 409, "vm_busy")["detail"]
        assert_problem(await capture(api, vm), 409, "vm_busy")
    assert (await api.operation(response))["state"] == "succeeded"
    assert (await api.get("/images/mine"))["status"] == "available"


@pytest.mark.parametrize("moment", ["after-ensure_snapshot", "before-capture_image"])
async def test_a_copy_that_fails_is_undone(api: Api, fake_stack: FakeStack, database: Database, moment: str) -> None:
    vm, headers = await api.create(), {"Idempotency-Key": new_name("key")}
    world = fake_stack.worlds[vm["node"]]
    images = world.names("images")
    with world.fault(moment, "permanent"):
        problem = assert_problem(await capture(api, vm, "mine", headers=headers), 500, "operation_failed")
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert_problem(await api.http.get("/images/mine"), 404, "not_found")
    assert world.names("images") == images
    assert (await root_of(fake_stack, database, vm)).facts["snapshots"] == {}
    assert (await capture(api, vm, "mine", headers=headers)).status_code == 201, "the key is free again"


async def test_a_repeated_request_is_one_image(api: Api) -> None:
    vm, headers = await api.create(), {"Idempotency-Key": new_name("key")}
    first, again = [await capture(api, vm, "mine", headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert_problem(await capture(api, vm, "other", headers=headers), 422, "idempotency_key_reused")
    kinds = [op["kind"] for op in await api.get(f"/operations?vm={vm['id']}")]
    assert kinds == ["image_capture", "vm_create"]


async def test_two_copies_of_the_same_bytes(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm, name = await api.create(), new_name("image")
    (await root_of(fake_stack, database, vm)).write(name)
    first, second = [(await capture(api, vm)).json() for _ in range(2)]
    assert first["checksum"] == second["checksum"]
    assert (await api.http.delete(f"/images/{first['id']}")).status_code == 204
    assert (await api.create(image=second["name"]))["image"] == second["name"]
