"""Idempotency-Key: the same request again has one effect and one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.api import Api, new_name
from support.problems import assert_problem


def keyed(key: str = "") -> dict[str, str]:
    return {"Idempotency-Key": key or new_name("key")}


async def test_a_repeated_create_is_the_same_vm(api: Api) -> None:
    headers, name = keyed(), new_name()
    first = await api.post_vm(name, headers=headers)
    again = await api.post_vm(name, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert len(await api.get("/vms")) == 1


async def test_creates_at_once_with_one_key_are_one_vm(api: Api) -> None:
    headers, name = keyed(), new_name()
    responses = await asyncio.gather(*(api.post_vm(name, headers=headers) for _ in range(20)))
    assert [response.status_code for response in responses] == [201] * 20
    assert len({response.json()["id"] for response in responses}) == 1
    assert len(await api.get("/vms")) == 1


async def test_the_same_body_in_other_spellings_is_the_same_body(api: Api) -> None:
    headers, name = keyed(), new_name()
    first = await api.http.post("/vms", json={"name": name, "ram_mib": 64, "cpu": 1}, headers=headers)
    again = await api.http.post("/vms", json={"CPU": "1", "Name": name, "RAM": "64"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]


async def test_another_body_under_the_same_key_is_refused(api: Api) -> None:
    headers, name = keyed(), new_name()
    assert (await api.post_vm(name, headers=headers)).status_code == 201
    assert_problem(await api.post_vm(name, cpu=2, headers=headers), 422, "idempotency_key_reused")
    assert_problem(await api.post_vm(new_name(), headers=headers), 422, "idempotency_key_reused")
    assert len(await api.get("/vms")) == 1


async def test_a_refused_create_leaves_its_key_free(api: Api) -> None:
    headers, name = keyed(), new_name()
    assert_problem(await api.post_vm(name, image="nothing", headers=headers), 422, "unknown_image")
    assert (await api.post_vm(name, headers=headers)).status_code == 201


async def test_a_repeat_that_does_not_wait_joins(api: Api) -> None:
    headers, name = keyed() | {"Prefer": "wait=0"}, new_name()
    first, again = await api.post_vm(name, headers=headers), await api.post_vm(name, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert (await api.post_vm(name, headers={**headers, "Prefer": "wait=30"})).status_code == 201


async def test_a_key_of_another_route_is_another_key(api: Api) -> None:
    headers = keyed()
    vm = (await api.post_vm(headers=headers)).json()
    for action, status in (("stop", "stopped"), ("start", "running")):
        response = await api.http.post(f"/vms/{vm['id']}/actions/{action}", headers=headers)
        assert (response.status_code, response.json()["status"]) == (200, status)
    assert (await api.http.delete(f"/vms/{vm['id']}", headers=headers)).status_code == 204
    assert (await api.http.delete(f"/vms/{vm['id']}", headers=headers)).status_code == 204
    assert_problem(await api.http.delete(f"/vms/{vm['id']}"), 404, "not_found")


async def test_a_repeated_action_is_not_done_twice(api: Api) -> None:
    vm = await api.create()
    url, headers = f"/vms/{vm['id']}/actions/reboot", keyed()
    first, again = await api.http.post(url, headers=headers), await api.http.post(url, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["operation"] == again.json()["operation"]
    assert (await api.http.post(url, headers=keyed())).json()["operation"] != first.json()["operation"]
    other_body = await api.http.post(url, json={"timeout_s": 9}, headers=headers)
    assert_problem(other_body, 422, "idempotency_key_reused")


async def test_an_action_that_was_already_true_can_be_repeated(api: Api) -> None:
    vm = await api.create()
    headers = keyed()
    for _ in range(3):
        response = await api.http.post(f"/vms/{vm['id']}/actions/start", headers=headers)
        assert (response.status_code, response.json()["id"]) == (200, vm["id"])


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        (
            "/ssh-keys",
            {"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Wm1hk8tDZ0Gu4PHWvIWl6JYXWk5nCQvCVIVCvEeQy a"},
            {"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Wm1hk8tDZ0Gu4PHWvIWl6JYXWk5nCQvCVIVCvEeQy b"},
        ),
        ("/networks", {"bridge": "br9", "dhcp": "external"}, {"bridge": "br8", "dhcp": "external"}),
    ],
)
async def test_keys_of_changes_without_an_operation(
    api: Api, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    headers, name = keyed(), new_name()
    responses = await asyncio.gather(
        *(api.http.post(path, json={"name": name, **body}, headers=headers) for _ in range(10))
    )
    assert [response.status_code for response in responses] == [201] * 10
    assert len({response.text for response in responses}) == 1
    assert_problem(
        await api.http.post(path, json={"name": name, **other}, headers=headers), 422, "idempotency_key_reused"
    )
    assert_problem(await api.http.post(path, json={"name": name, **body}), 409, "name_taken")
    for _ in range(2):
        assert (await api.http.delete(f"{path}/{name}", headers=headers)).status_code == 204
    assert_problem(await api.http.delete(f"{path}/{name}"), 404, "not_found")


async def test_the_key_of_a_vm_that_is_gone_says_so(api: Api) -> None:
    headers, name = keyed(), new_name()
    vm = (await api.post_vm(name, headers=headers)).json()
    assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
    assert_problem(await api.post_vm(name, headers=headers), 404, "not_found")


@pytest.mark.parametrize("key", ["x" * 256, "x" * 5000, "", "a\tb", "schlüssel".encode().decode("latin-1")])
async def test_keys_that_can_not_be_kept_are_refused(api: Api, key: str) -> None:
    response = await api.http.post("/vms", json={"name": "x1"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert_problem(response, 400, "bad_request")
    assert await api.get("/vms") == []


async def test_the_longest_key_works(api: Api) -> None:
    assert (await api.post_vm(headers=keyed("k" * 255))).status_code == 201
