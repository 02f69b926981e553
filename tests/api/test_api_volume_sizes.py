"""Volumes grow and never shrink, and the claim of their pool is exact."""

from __future__ import annotations

import asyncio
from typing import Any

from support.api import Api, new_name
from support.fake_disks import data_of, domain_of
from support.fake_stack import FakeStack
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only


async def test_volumes_grow_wherever_they_are(api: Api, fake_stack: FakeStack, database: Database) -> None:
    vm = await api.create()
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
    disk = await data_of(fake_stack, database, volume, vm["node"])
    assert disk.facts["size_gib"] == 2
    await grow(3)
    live = (await domain_of(fake_stack, database, vm))["live"]
    assert live["2"]["size_bytes"] == 3 * 2**30, "by the running hypervisor"
    assert (await api.get(f"/vms/{vm['id']}"))["volumes"][0]["size_gib"] == 3
    assert (await api.act(vm, "poweroff")).status_code == 200
    await grow(4)
    assert disk.facts["size_gib"] == 4
    assert (await api.detach(volume)).status_code == 200
    await grow(5)
    assert disk.facts["size_gib"] == 5
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


async def test_a_resize_that_fails_gives_the_claim_back(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    volume = await api.attached(vm, 2)
    with fake_stack.worlds[vm["node"]].fault("before-grow_disk", "permanent"):
        assert_problem(await api.resize(volume, 9), 500, "operation_failed")
    assert (await api.get(f"/volumes/{volume['id']}")).items() >= {"status": "in_use", "size_gib": 2}.items()
    assert (await api.disk_claimed())[vm["node"]] == 1 + 2
    assert (await api.resize(volume, 9)).status_code == 200
