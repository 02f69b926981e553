"""kill -9 of API nodes under a small load, and changes of VMs whose owner is away."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.problems import assert_problem


async def load(api: Api, name: str) -> httpx.Response:
    return await api.post_vm(name, headers={"Idempotency-Key": new_name("load")})


@pytest.mark.parametrize("member", ["external1", "external2"])
async def test_killing_an_external_node_fails_no_request(api: Api, fake_stack: FakeStack, member: str) -> None:
    responses: list[httpx.Response] = []

    async def make() -> None:
        for _ in range(12):
            responses.append(await load(api, new_name()))
            responses.append(await api.http.get("/vms?limit=5"))

    making = asyncio.gather(*(make() for _ in range(4)))
    await asyncio.sleep(0.15)
    await asyncio.to_thread(fake_stack.control.kill, member, signal.SIGKILL)
    await making
    assert {response.status_code for response in responses} == {200, 201}
    fake_stack.control.wait(member)
    assert len(await api.all("/vms")) == 48


@pytest.mark.parametrize("member", ["internal1", "internal2"])
async def test_killing_an_internal_node_loses_nothing_acknowledged(
    api: Api, fake_stack: FakeStack, member: str
) -> None:
    names = [new_name() for _ in range(40)]
    keys = {name: {"Idempotency-Key": new_name("load")} for name in names}
    acknowledged: dict[str, int] = {}

    async def make(some: list[str]) -> None:
        for name in some:
            response = await api.post_vm(name, headers=keys[name])
            if response.status_code in (201, 202):
                acknowledged[name] = response.json()["id"]
            else:
                assert_problem(response, 503)

    making = asyncio.gather(*(make(names[start::4]) for start in range(4)))
    await asyncio.sleep(0.15)
    await asyncio.to_thread(fake_stack.control.kill, member, signal.SIGKILL)
    await making
    fake_stack.control.wait(member)
    assert len(acknowledged) >= 30
    for name in names:
        # the same request again: what was acknowledged is the same VM, what was not is made now
        response = await api.post_vm(name, headers=keys[name])
        assert response.status_code == 201, response.text
        assert response.json()["id"] == acknowledged.get(name, response.json()["id"])
        assert response.json()["status"] == "running"
    listed = await api.all("/vms")
    assert sorted(vm["name"] for vm in listed) == sorted(names)
    for node in await api.get("/nodes"):
        mine = [vm for vm in listed if vm["node"] == node["name"]]
        assert (node["vms"], node["ram_claimed_mib"]) == (len(mine), 64 * len(mine))
    worlds = fake_stack.worlds
    assert sum(len(world.names("domains")) for world in worlds.values()) == len(names)


async def test_the_other_node_takes_changes_while_the_owner_is_away(api: Api, fake_stack: FakeStack) -> None:
    vms = [await api.create() for _ in range(6)]
    owner = vms[0]["node"]
    stopped, deleted = [vm for vm in vms if vm["node"] == owner][:1], [vm for vm in vms if vm["node"] == owner][1:2]
    member = fake_stack.member_of(owner)
    fake_stack.control.stop(member)
    try:
        pending = []
        for vm in stopped:
            response = await api.http.post(f"/vms/{vm['id']}/actions/stop", headers={"Prefer": "wait=1"})
            pending.append(response)
            assert (response.status_code, response.json()["status"]) == (202, "stopping")
            assert_problem(await api.act(vm, "start"), 409, "vm_busy")
        for vm in deleted:
            response = await api.http.delete(f"/vms/{vm['id']}", headers={"Prefer": "wait=0"})
            pending.append(response)
            assert (response.status_code, response.json()["status"]) == (202, "deleting")
        for response in pending:
            op = await api.get(f"/operations/{response.json()['operation']}")
            assert (op["state"], op["node"]) == ("pending", owner)
        others = [await api.create() for _ in range(3)]
        assert {vm["node"] for vm in others} == {"hv1", "hv2"} - {owner}
        waiting = asyncio.create_task(api.act(stopped[0], "stop"))
        await asyncio.sleep(0.2)
    finally:
        fake_stack.control.start(member)
        fake_stack.control.wait(member)
    assert (await waiting).json()["status"] == "stopped"
    for response in pending:
        assert (await api.operation(response))["state"] == "succeeded"
    for vm in deleted:
        assert_problem(await api.http.get(f"/vms/{vm['id']}"), 404)


async def test_a_node_that_ends_answers_202_to_those_who_wait(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    member = fake_stack.member_of(vm["node"])
    with fake_stack.worlds[vm["node"]].fault("deaf", "yes"):
        waiting = asyncio.create_task(api.act(vm, "stop", timeout_s=600))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(fake_stack.control.restart, member)
        response = await waiting
        assert (response.status_code, response.json()["status"]) == (202, "stopping")
        fake_stack.control.wait(member)
    assert (await api.act(vm, "poweroff")).json()["status"] == "stopped"
