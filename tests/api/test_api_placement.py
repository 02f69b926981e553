"""Placement: HAProxy spreads VMs by free capacity; drained and full nodes get none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

from terrace.stack import redis as stack_redis

NODE_KEYS = {
    *("name", "state", "cpu", "cpu_overcommit", "cpu_claimed", "ram_mib", "ram_overcommit", "ram_claimed_mib"),
    *("disk_gib", "disk_overcommit", "disk_claimed_gib", "vms", "last_seen"),
    *("pool", "storage", "pool_shared", "pool_used_bytes"),
}


@pytest.fixture
async def nodes(api: Api) -> AsyncIterator[None]:
    """Both nodes are active before and after."""
    yield
    for name in ("hv1", "hv2"):
        assert (await api.http.post(f"/nodes/{name}/undrain")).status_code == 200


async def owners(api: Api, count: int, **fields: Any) -> Counter[str]:
    return Counter([vm["node"] for vm in await asyncio.gather(*(api.create(**fields) for _ in range(count)))])


async def test_nodes_tell_what_they_have(api: Api) -> None:
    found = await api.get("/nodes")
    assert [node["name"] for node in found] == ["hv1", "hv2"]
    vm = await api.create(cpu=3, ram_mib=128, disk_gib=2)
    node = await api.get(f"/nodes/{vm['node']}")
    assert node.keys() == NODE_KEYS
    assert (node["state"], node["vms"]) == ("active", 1)
    assert (node["cpu_claimed"], node["ram_claimed_mib"], node["disk_claimed_gib"]) == (3, 128, 2)
    assert (node["cpu"], node["cpu_overcommit"], node["ram_overcommit"]) == (64, 4.0, 1.0)


async def test_vms_are_spread(api: Api) -> None:
    found = await owners(api, 20)
    assert found["hv1"] >= 6 and found["hv2"] >= 6


@pytest.mark.parametrize("action", ["drain", "maintenance"])
async def test_a_drained_node_gets_no_vms(api: Api, nodes: None, action: str) -> None:
    kept = await api.create()
    response = await api.http.post(f"/nodes/hv1/{action}")
    assert response.status_code == 200
    assert response.json()["state"] == {"drain": "draining", "maintenance": "maintenance"}[action]
    assert (await api.http.post(f"/nodes/hv1/{action}")).status_code == 200
    assert await owners(api, 10) == {"hv2": 10}, "the claim knows at once"
    assert (await api.get(f"/vms/{kept['id']}"))["status"] == "running"
    assert (await api.act(kept, "reboot")).status_code == 200
    assert (await api.http.post("/nodes/hv1/undrain")).json()["state"] == "active"

    async def takes_vms_again() -> bool:
        return (await api.create())["node"] == "hv1"

    await eventually(takes_vms_again, within_s=5)


async def test_when_all_nodes_are_drained_there_is_no_room(api: Api, nodes: None) -> None:
    for name in ("hv1", "hv2"):
        await api.http.post(f"/nodes/{name}/drain")
    assert_problem(await api.post_vm(), 507, "no_capacity")
    await asyncio.sleep(2.5)  # by now HAProxy knows it, too, and has no server left
    assert_problem(await api.post_vm(), 507, "no_capacity")
    await api.http.post("/nodes/hv2/undrain")
    assert (await api.create())["node"] == "hv2", "before HAProxy knows it again"


async def test_weights_follow_free_memory(api: Api, nodes: None) -> None:
    await api.http.post("/nodes/hv2/drain")
    await asyncio.gather(*(api.create(ram_mib=1024) for _ in range(17)))
    await api.http.post("/nodes/hv2/undrain")
    await asyncio.sleep(2.5)  # heartbeat and agent check, a second each
    found = await owners(api, 30)
    assert found["hv2"] > 2 * found["hv1"]


async def test_a_hundred_creates_on_room_for_forty(api: Api, database: Any) -> None:
    responses = await asyncio.gather(*(api.post_vm(ram_mib=1024) for _ in range(100)))
    assert Counter(response.status_code for response in responses) == {201: 40, 507: 60}
    for response in responses:
        if response.status_code == 507:
            assert_problem(response, 507, "no_capacity")
    assert await database.fetchval("select count(*) from vms") == 40
    assert [node["ram_claimed_mib"] for node in await api.get("/nodes")] == [20 * 1024] * 2
    assert_problem(await api.post_vm(), 507, "no_capacity")
    victim = responses[[response.status_code for response in responses].index(201)].json()
    assert (await api.http.delete(f"/vms/{victim['id']}")).status_code == 204
    assert (await api.create(ram_mib=1024))["node"] == victim["node"]


@pytest.mark.parametrize("fields", [{"cpu": 257}, {"ram_mib": 20 * 1024 + 1}, {"cpu": 512, "ram_mib": 16_777_216}])
async def test_vms_larger_than_any_node(api: Api, fields: dict[str, int]) -> None:
    problem = assert_problem(await api.post_vm(**fields), 422, "size_out_of_range")
    assert "node" in problem["detail"]
    assert await api.get("/vms") == []


async def test_vms_as_large_as_a_node(api: Api) -> None:
    assert (await api.post_vm(ram_mib=20 * 1024)).status_code == 201
    assert (await api.post_vm(cpu=256)).status_code == 201


async def test_a_disk_larger_than_any_pool(api: Api) -> None:
    found = await asyncio.gather(
        api.post_vm(disk_gib=60_000), api.post_vm(disk_gib=60_000), api.post_vm(disk_gib=60_000)
    )
    assert Counter(response.status_code for response in found) == {201: 2, 507: 1}, "pools are overcommitted twice"


async def test_nodes_that_are_not_there(api: Api) -> None:
    assert_problem(await api.http.get("/nodes/hv9"), 404, "not_found")
    for action in ("drain", "undrain", "maintenance"):
        assert_problem(await api.http.post(f"/nodes/hv9/{action}"), 404, "not_found")
    assert_problem(await api.http.post("/nodes/hv1/explode"), 422, "invalid_request")


async def test_either_external_node_serves_every_vm(api: Api, fake_stack: FakeStack) -> None:
    vms = await asyncio.gather(*(api.create(new_name()) for _ in range(4)))
    for url in fake_stack.external_urls:
        async with Api.open(url, fake_stack.token) as direct:
            assert {vm["id"] for vm in await direct.get("/vms")} >= {vm["id"] for vm in vms}
            for vm in vms:
                assert (await direct.act(vm, "reboot")).status_code == 200
                assert (await direct.get(f"/vms/{vm['name']}"))["id"] == vm["id"]
            assert (await direct.create())["status"] == "running"


async def test_either_internal_node_takes_changes_of_every_vm(api: Api, fake_stack: FakeStack, database: Any) -> None:
    """What Redis says is a shortcut: a wrong one changes nothing."""
    vm = await api.create()
    other = {"hv1": "hv2", "hv2": "hv1"}[vm["node"]]
    async with Redis.from_url(stack_redis.url(fake_stack.settings)) as cache:
        project = await database.fetchval("select project_id from vms where id = $1", vm["id"])
        key = f"placement:{project}:{vm['id']}"
        assert (await cache.get(key)).decode() == vm["node"]
        await cache.set(key, other)
        response = await api.act(vm, "stop")
        assert (response.status_code, response.json()["status"], response.json()["node"]) == (
            200,
            "stopped",
            vm["node"],
        )
        op = await api.get(f"/operations/{response.json()['operation']}")
        assert op["node"] == vm["node"]
        await cache.delete(key)
        assert (await api.act(vm, "start")).json()["status"] == "running"
        assert (await cache.get(key)).decode() == vm["node"]
        assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
        assert await cache.get(key) is None
