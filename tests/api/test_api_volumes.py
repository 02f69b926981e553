"""Volumes: their life, what is refused, and where they may go."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from support.api import Api, new_name
from support.fake_disks import data_of, plugged
from support.fake_stack import FakeStack
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only
KEYS = {
    *("id", "name", "status", "size_gib", "vm", "vm_name", "device", "pool", "node", "delete_with_vm"),
    *("created_at", "operation", "error"),
}


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
    plugged_in = response.json()
    assert plugged_in == await api.get("/volumes/data-1")
    device = f"/dev/disk/by-id/virtio-volume-{volume['id']}"
    assert plugged_in.items() >= {"status": "in_use", "vm": vm["id"], "vm_name": vm["name"], "device": device}.items()
    assert (plugged_in["node"], plugged_in["delete_with_vm"]) == (vm["node"], False)
    assert vm["node"] in plugged_in["pool"]
    seen = (await api.get(f"/vms/{vm['id']}"))["volumes"]
    assert seen == [{"id": volume["id"], "name": "data-1", "size_gib": 3, "device": device}]
    disk = await data_of(fake_stack, database, plugged_in)
    assert disk.facts["size_gib"] == 3
    assert disk.name in await plugged(fake_stack, database, vm) & await plugged(fake_stack, database, vm, "defined")
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3

    response = await api.detach(volume)
    assert (response.status_code, response.json()["status"]) == (200, "available")
    assert [response.json()[key] for key in ("vm", "vm_name", "device")] == [None] * 3
    assert response.json()["node"] == vm["node"], "it stays where it is"
    assert disk.name not in await plugged(fake_stack, database, vm) | await plugged(fake_stack, database, vm, "defined")
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3

    response = await api.http.delete("/volumes/data-1")
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await api.http.get("/volumes/data-1"), 404, "not_found")
    assert not disk.is_stored
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
    name = (await data_of(fake_stack, database, volume)).name
    assert name in await plugged(fake_stack, database, vm, "defined")
    assert (await api.act(vm, "start")).json()["volumes"][0]["id"] == volume["id"]
    assert name in await plugged(fake_stack, database, vm)
    assert (await api.act(vm, "poweroff")).status_code == 200
    assert (await api.detach(volume)).json()["status"] == "available"
    assert (await api.act(vm, "start")).json()["volumes"] == []
    assert name not in await plugged(fake_stack, database, vm)


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
    assert len(await plugged(fake_stack, database, vm)) == 2 + 8
    assert (await api.detach(volumes[3])).status_code == 200
    assert (await api.attach(ninth, vm)).status_code == 200, "into the slot that is free"
    assert {one["id"] for one in (await api.get(f"/vms/{vm['id']}"))["volumes"]} == {
        one["id"] for one in (*volumes[:3], *volumes[4:], ninth)
    }


async def test_a_volume_stays_with_its_node(api: Api) -> None:
    here, there = await api.create_on("hv1"), await api.create_on("hv2")
    volume = await api.attached(here)
    before = await api.disk_claimed()
    assert (await api.detach(volume)).status_code == 200
    problem = assert_problem(await api.attach(volume, there), 409, "volume_elsewhere")
    assert "hv1" in problem["detail"] and "hv2" in problem["detail"]
    assert await api.disk_claimed() == before
    assert (await api.attach(volume, await api.create_on("hv1"))).status_code == 200


@pytest.mark.parametrize("goes", [True, False])
async def test_volumes_go_or_stay_when_their_vm_is_deleted(
    api: Api, fake_stack: FakeStack, database: Database, goes: bool
) -> None:
    vm = await api.create()
    volume = await api.attached(vm, 3, delete_with_vm=goes)
    assert volume["delete_with_vm"] is goes
    disk = await data_of(fake_stack, database, volume)
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    response = await api.http.get(f"/volumes/{volume['id']}")
    assert disk.is_stored is not goes
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
