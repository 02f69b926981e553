"""POST /vms: what a body may say, what the answer holds, and how long it waits."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.problems import assert_problem

KEYS = {
    *("id", "name", "status", "cpu", "ram_mib", "disk_gib", "image", "network", "ip", "node", "labels"),
    *("created_at", "started_at", "ready_at", "operation", "error", "volumes"),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


async def test_only_the_name_has_no_default(api: Api) -> None:
    response = await api.http.post("/vms", json={"name": "test-1"})
    assert response.status_code == 201
    vm = response.json()
    assert vm.keys() == KEYS
    assert (vm["name"], vm["status"], vm["cpu"], vm["ram_mib"], vm["disk_gib"]) == ("test-1", "running", 1, 512, 10)
    assert (vm["image"], vm["network"], vm["labels"], vm["error"]) == ("tiny", "default", {}, None)
    assert vm["node"] in ("hv1", "hv2")
    assert vm["ip"].startswith("10.77.")
    assert TIME.fullmatch(vm["created_at"]) and TIME.fullmatch(vm["started_at"])
    assert vm["ready_at"] is None
    assert response.headers["location"] == f"/api/v1/vms/{vm['id']}"
    assert await api.get(f"/vms/{vm['id']}") == vm
    assert await api.get("/vms/test-1") == vm
    assert await api.get("/vms") == [vm]


async def test_the_loose_spellings_work_as_they_stand(api: Api) -> None:
    body = b'{"Name":"test-1","RAM":"1024","CPU":"2","Disk":"10G"}'
    response = await api.http.post("/vms", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201
    vm = response.json()
    assert vm.keys() == KEYS
    assert (vm["name"], vm["ram_mib"], vm["cpu"], vm["disk_gib"]) == ("test-1", 1024, 2, 10)


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "",
            "application/json",
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            "application/merge-patch+json",
        ),
        "application/x-www-form-urlencoded",  # as curl -d says of everything
    ],
)
async def test_bodies_taken_for_json(api: Api, kind: str) -> None:
    content = b'{"name":"test-1","ram_mib":64}'
    response = await api.http.post("/vms", content=content, headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 201, response.text
    action = f"/vms/{response.json()['id']}/actions/stop"
    response = await api.http.post(action, content=b'{"timeout_s":9}', headers={"Content-Type": kind} if kind else {})
    assert (response.status_code, response.json()["status"]) == (200, "stopped")


@pytest.mark.parametrize(
    ("loose", "wanted"),
    [
        ({"RAM": 256}, {"ram_mib": 256}),
        ({"CPU": 3}, {"cpu": 3}),
        ({"Disk": 20}, {"disk_gib": 20}),
        ({"Disk": "20"}, {"disk_gib": 20}),
        ({"Disk": "2T"}, {"disk_gib": 2048}),
        ({"Disk": "7G", "cpu": 2, "RAM": "128"}, {"disk_gib": 7, "cpu": 2, "ram_mib": 128}),
    ],
)
async def test_loose_spellings_take_numbers_and_strings(
    api: Api, loose: dict[str, Any], wanted: dict[str, int]
) -> None:
    response = await api.http.post("/vms", json={"Name": new_name(), **loose})
    assert response.status_code == 201, response.text
    assert wanted.items() <= response.json().items()


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"RAM": value}
            for value in ("1024M", "1 024", "-1", "0", "", "1e3", "1024.0", "０１", "1024\n", 1.5, True, None, [])
        ),
        *({"CPU": value} for value in ("two", "2.0", "+2", 2.0, False, None, {})),
        *(
            {"Disk": value}
            for value in ("10g", "10GB", "G", "010", "0", "0G", " 10G", "10G\n", "1.5T", "10P", -1, 0, 1.0)
        ),
        {"Name": 7},
        {"Disk": "9999999999T"},
        {"RAM": "1024", "ram_mib": 1024},
        {"CPU": 1, "cpu": 1},
        {"Disk": "10G", "disk_gib": 10},
        {"Name": "a", "name": "a"},
        {"name": "other"},
        {"ram": 1024},
        {"NAME": "x"},
        {"disk": "10G"},
    ],
    ids=str,
)
async def test_wrong_loose_spellings_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    response = await api.http.post("/vms", json={"Name": new_name(), **wrong})
    assert_problem(response, 422, "invalid_request")
    assert await api.get("/vms") == []


@pytest.mark.parametrize("field", ["cpu", "ram_mib", "disk_gib"])
@pytest.mark.parametrize(
    "value", ["1", 1.0, 1.5, True, False, None, [1], {"a": 1}, 0, -1, 2**31, 2**63, 10**40], ids=str
)
async def test_integers_are_integers_in_range(api: Api, field: str, value: Any) -> None:
    problem = assert_problem(await api.http.post("/vms", json={"name": "x1", field: value}), 422, "invalid_request")
    assert field in problem["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {field: None}
            for field in ("name", "image", "ssh_keys", "network", "password_hash", "files", "user_data", "labels")
        ),
        {"name": 1},
        {"image": 1},
        {"network": 1},
        {"ssh_keys": "laptop"},
        {"ssh_keys": [1]},
        {"ssh_keys": [None]},
        {"files": {}},
        {"files": [None]},
        {"files": [{"path": "/a", "content": 1}]},
        {"files": [{"path": "/a", "content": None}]},
        {"files": [{"path": "/a", "content": "x", "mode": 644}]},
        {"files": [{"path": "/a"}]},
        {"user_data": 1},
        {"user_data": ["#!/bin/sh"]},
        {"labels": []},
        {"labels": {"a": 1}},
        {"labels": {"a": None}},
        {"labels": {"a": True}},
    ],
    ids=str,
)
async def test_types_are_strict_and_null_is_refused(api: Api, fields: dict[str, Any]) -> None:
    assert_problem(await api.http.post("/vms", json={"name": "x1", **fields}), 422, "invalid_request")


async def test_everything_at_once(api: Api, fake_stack: FakeStack) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Wm1hk8tDZ0Gu4PHWvIWl6JYXWk5nCQvCVIVCvEeQy me@laptop"
    vm = await api.create(
        cpu=2,
        ram_mib=128,
        disk_gib=3,
        image="tiny",
        ssh_keys=[key, key],
        network="default",
        password_hash="$6$saltsalt$" + "a" * 86,
        files=[{"path": "/etc/motd", "content": "grüß dich\n", "mode": "0600"}, {"path": "/x", "content": ""}],
        user_data="#cloud-config\nruncmd: [[touch, /done]]\n",
        labels={"env": "prod", "team/name": ""},
    )
    assert vm["labels"] == {"env": "prod", "team/name": ""}
    world = fake_stack.worlds[vm["node"]]
    assert len(world.names("domains")) == len(world.names("volumes")) == len(world.names("blobs")) == 1
    op = await api.get(f"/operations/{vm['operation']}")
    assert [step["name"] for step in op["steps"]] == [
        *("claim", "image", "volume", "seed", "network", "domain", "start", "placement")
    ]


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async", 'wait="0"', "Respond-Async", "handling=lenient, wait=0"])
async def test_a_client_that_does_not_wait_gets_the_vm_and_its_operation(api: Api, prefer: str) -> None:
    response = await api.post_vm(headers={"Prefer": prefer})
    assert response.status_code == 202
    vm = response.json()
    assert vm.keys() == KEYS
    assert vm["status"] in ("creating", "running")
    op = await api.operation(response)
    assert response.headers["location"] == f"/api/v1/operations/{vm['operation']}" == f"/api/v1/operations/{op['id']}"
    assert (op["state"], op["kind"], op["vm"], op["vm_name"]) == ("succeeded", "vm_create", vm["id"], vm["name"])
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"


async def test_a_slow_create_is_answered_when_the_wait_is_over(api: Api, fake_stack: FakeStack) -> None:
    worlds, slow = fake_stack.worlds, ("before-ensure_defined", "sleep 2")
    with worlds["hv1"].fault(*slow), worlds["hv2"].fault(*slow):
        response = await api.post_vm(headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert 0.9 < response.elapsed.total_seconds() < 1.9
    assert response.json()["status"] == "creating"
    assert (await api.operation(response))["state"] == "succeeded"


@pytest.mark.parametrize("prefer", ["wait=20", "wait=99999999999", "wait=-1", "wait=soon", "wait", "", "x=;y,,"])
async def test_a_quick_create_does_not_use_up_its_wait(api: Api, prefer: str) -> None:
    response = await api.post_vm(headers={"Prefer": prefer})
    assert response.status_code == 201
    assert response.elapsed.total_seconds() < 5


async def test_a_create_that_fails_is_undone_and_says_why(api: Api, fake_stack: FakeStack) -> None:
    name = new_name()
    worlds = fake_stack.worlds
    with (
        worlds["hv1"].fault("after-ensure_started", "permanent"),
        worlds["hv2"].fault("after-ensure_started", "permanent"),
    ):
        problem = assert_problem(await api.post_vm(name), 500, "operation_failed")
        waitless = await api.post_vm(new_name(), headers={"Prefer": "wait=0"})
        if waitless.status_code == 202:
            assert (await api.operation(waitless))["state"] == "failed"
        else:
            assert_problem(waitless, 500, "operation_failed")
    op = await api.get(f"/operations/{problem['operation']}")
    assert (op["state"], op["error"]["code"]) == ("failed", "operation_failed")
    assert_problem(await api.http.get(f"/vms/{name}"), 404, "not_found")
    for world in worlds.values():
        assert world.names("domains") == world.names("volumes") == world.names("blobs") == []
    assert (await api.create(name))["status"] == "running"


async def test_one_name_fifty_times_at_once_is_one_vm(api: Api) -> None:
    name = new_name()
    responses = await asyncio.gather(*(api.post_vm(name) for _ in range(50)))
    statuses = sorted(response.status_code for response in responses)
    assert statuses == [201] + [409] * 49
    for response in responses:
        if response.status_code == 409:
            assert name in assert_problem(response, 409, "name_taken")["detail"]
    assert len(await api.get("/vms")) == 1
