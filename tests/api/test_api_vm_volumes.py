"""POST /vms with volumes: made and plugged in with the VM, and nothing left when it can't be made."""

from __future__ import annotations

from typing import Any

import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only


async def nothing_is_left(api: Api, stack: FakeStack) -> bool:
    """No VM, no volume, no claim, and nothing in a pool."""
    left = [name for world in stack.worlds.values() for kind in ("volumes", "blobs") for name in world.names(kind)]
    lists = await api.get("/vms"), await api.get("/volumes")
    return lists == ([], []) and not left and set((await api.disk_claimed()).values()) == {0}


async def test_volumes_are_made_with_their_vm(api: Api, fake_stack: FakeStack, database: Database) -> None:
    names = [new_name("data"), new_name("scratch")]
    wanted = [{"name": names[0], "size_gib": 3}, {"name": names[1], "size_gib": 2, "delete_with_vm": True}]
    vm = await api.create(volumes=wanted)
    data, scratch = [await api.get(f"/volumes/{name}") for name in names]
    assert vm["volumes"] == [
        {key: volume[key] for key in ("id", "name", "size_gib", "device")} for volume in (data, scratch)
    ]
    for volume, goes in ((data, False), (scratch, True)):
        seen = {"status": "in_use", "vm": vm["id"], "vm_name": vm["name"], "node": vm["node"], "delete_with_vm": goes}
        assert volume.items() >= seen.items()
    assert (await api.disk_claimed())[vm["node"]] == 1 + 3 + 2
    world = fake_stack.worlds[vm["node"]]
    uuids = [row[0] for row in await database.fetch("select uuid from volumes order by id")]
    assert [world.read("volumes", f"{uuid}-data")["size_gib"] for uuid in uuids] == [3, 2]
    domain = world.read("domains", str(await database.fetchval("select uuid from vms")))
    assert sorted(domain["live"]) == ["0", "1", "2", "3"]
    op = await api.get(f"/operations/{vm['operation']}")
    assert [step["name"] for step in op["steps"]] == [
        *("claim", "image", "volume", "seed", "network", "domain", "start", "placement")
    ]

    assert (await api.detach(data)).status_code == 200
    assert (await api.attach(data, vm)).status_code == 200
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    assert_problem(await api.http.get(f"/volumes/{names[1]}"), 404, "not_found")
    kept = await api.get(f"/volumes/{names[0]}")
    assert kept.items() >= {"status": "available", "vm": None, "size_gib": 3, "node": vm["node"]}.items()
    assert (await api.disk_claimed())[vm["node"]] == 3
    assert world.names("volumes") == [f"{uuids[0]}-data"]
    assert (await api.http.delete(f"/volumes/{names[0]}")).status_code == 204
    assert await nothing_is_left(api, fake_stack)


async def test_eight_volumes_and_the_loose_spellings(api: Api) -> None:
    volumes = [{"name": new_name("data"), "size_gib": 1} for _ in range(8)]
    body = {"Name": new_name(), "RAM": "64", "Disk": "1G", "volumes": volumes}
    response = await api.http.post("/vms", json=body)
    assert response.status_code == 201, response.text
    assert [volume["name"] for volume in response.json()["volumes"]] == [volume["name"] for volume in volumes]
    assert_problem(await api.attach(await api.create_volume(), response.json()), 422, "too_many_volumes")


@pytest.mark.parametrize(
    "volumes",
    [
        None,
        {},
        "data",
        [None],
        ["data"],
        [{}],
        [{"name": "data"}],
        [{"size_gib": 1}],
        [{"name": "123", "size_gib": 1}],
        [{"name": "Data", "size_gib": 1}],
        [{"name": "data", "size_gib": 0}],
        [{"name": "data", "size_gib": "1"}],
        [{"name": "data", "size_gib": 65_537}],
        [{"name": "data", "size_gib": 1, "delete_with_vm": None}],
        [{"name": "data", "size_gib": 1, "delete_with_vm": 1}],
        [{"name": "data", "size_gib": 1, "vm": "x1"}],
        [{"name": "data", "size_gib": 1}, {"name": "data", "size_gib": 2}],
        [{"name": f"data-{n}", "size_gib": 1} for n in range(9)],
    ],
    ids=str,
)
async def test_what_is_no_list_of_volumes(api: Api, fake_stack: FakeStack, volumes: Any) -> None:
    problem = assert_problem(await api.post_vm(volumes=volumes), 422, "invalid_request")
    assert "volumes" in problem["detail"]
    assert await nothing_is_left(api, fake_stack)


async def test_a_volume_name_that_is_taken_leaves_nothing(api: Api) -> None:
    taken, name, free = await api.create_volume(), new_name(), new_name("data")
    volumes = [{"name": free, "size_gib": 1}, {"name": taken["name"], "size_gib": 1}]
    problem = assert_problem(await api.post_vm(name, volumes=volumes), 409, "name_taken")
    assert "volume" in problem["detail"]
    assert await api.get("/vms") == []
    assert await api.get("/volumes") == [taken]
    assert set((await api.disk_claimed()).values()) == {0}
    assert {node["cpu_claimed"] for node in await api.get("/nodes")} == {0}
    assert (await api.create(name, volumes=volumes[:1]))["volumes"][0]["name"] == free


async def test_volumes_count_when_a_node_is_chosen(api: Api, fake_stack: FakeStack) -> None:
    async with fake_stack.pools_of(10):
        nine = [{"name": "data", "size_gib": 9}]
        assert_problem(await api.post_vm(disk_gib=2, volumes=nine), 422, "size_out_of_range")
        first = await api.create(volumes=nine)
        second = await api.create(volumes=[{"name": "data-2", "size_gib": 9}])
        assert first["node"] != second["node"], "the full one sends it on"
        assert_problem(await api.post_vm(volumes=[{"name": "data-3", "size_gib": 1}]), 507, "no_capacity")
        assert await api.disk_claimed() == {"hv1": 10, "hv2": 10}
        assert len(await api.get("/volumes")) == len(await api.get("/vms")) == 2


@pytest.mark.parametrize("moment", ["before-ensure_empty_volume", "after-ensure_empty_volume", "after-ensure_started"])
async def test_a_create_that_fails_takes_its_volumes_back(api: Api, fake_stack: FakeStack, moment: str) -> None:
    name, volumes = new_name(), [{"name": new_name("data"), "size_gib": 2} for _ in range(2)]
    worlds = fake_stack.worlds
    with worlds["hv1"].fault(moment, "permanent"), worlds["hv2"].fault(moment, "permanent"):
        assert_problem(await api.post_vm(name, volumes=volumes), 500, "operation_failed")
    assert await nothing_is_left(api, fake_stack)
    assert len((await api.create(name, volumes=volumes))["volumes"]) == 2


async def test_while_the_vm_is_made_its_volumes_wait(api: Api, fake_stack: FakeStack) -> None:
    name, worlds = new_name("data"), fake_stack.worlds
    slow = ("before-ensure_started", "sleep 0.6")
    with worlds["hv1"].fault(*slow), worlds["hv2"].fault(*slow):
        response = await api.post_vm(volumes=[{"name": name, "size_gib": 1}], headers={"Prefer": "wait=0"})
        volume = await api.get(f"/volumes/{name}")
        assert (volume["status"], volume["vm"]) == ("creating", response.json()["id"])
        assert_problem(await api.http.delete(f"/volumes/{name}"), 409, "volume_in_use")
        assert_problem(await api.detach(volume), 409, "vm_busy")
        assert_problem(await api.resize(volume, 2), 409, "volume_state")
        assert_problem(await api.attach(volume, response.json()), 409, "volume_in_use")
    assert (await api.operation(response))["state"] == "succeeded"
    assert (await api.get(f"/volumes/{name}"))["status"] == "in_use"


async def test_a_repeated_create_has_the_same_volumes(api: Api) -> None:
    name, headers, volumes = new_name(), {"Idempotency-Key": new_name("key")}, [{"name": "data", "size_gib": 1}]
    first, again = [await api.post_vm(name, volumes=volumes, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = [{"name": "data", "size_gib": 2}]
    assert_problem(await api.post_vm(name, volumes=other, headers=headers), 422, "idempotency_key_reused")
    assert len(await api.get("/volumes")) == 1
