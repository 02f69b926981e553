"""One request id from the edge through both tiers to the operation and the logs; never a secret there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SERVICES = ("external1", "external2", "internal1", "internal2")


async def lines_with(stack: FakeStack, tier: str, request_id: str, event: str) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]]:
        text = "".join(stack.log(f"{tier}{number}") for number in (1, 2))
        lines = [json.loads(line) for line in text.split("\n") if f'"{request_id}"' in line and line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    return await eventually(found)


async def test_a_given_id_is_everywhere(api: Api, fake_stack: FakeStack) -> None:
    given = new_name("my-request.id")
    response = await api.post_vm(headers={"X-Request-ID": given})
    assert response.headers.get_list("x-request-id") == [given]
    op = await api.get(f"/operations/{response.json()['operation']}")
    assert op["request_id"] == given
    assert (await lines_with(fake_stack, "external", given, "request"))[0]["path"] == "/api/v1/vms"
    assert (await lines_with(fake_stack, "internal", given, "request"))[0]["path"] == "/internal/v1/vms"
    assert (await lines_with(fake_stack, "internal", given, "operation_finished"))[0]["op"] == op["id"]


async def test_an_id_is_made_when_there_is_none(api: Api, fake_stack: FakeStack) -> None:
    first, second = await api.post_vm(), await api.post_vm()
    ids = [response.headers["x-request-id"] for response in (first, second)]
    assert ids[0] != ids[1]
    for response, request_id in zip((first, second), ids, strict=True):
        assert UUID.fullmatch(request_id)
        assert (await api.get(f"/operations/{response.json()['operation']}"))["request_id"] == request_id
        await lines_with(fake_stack, "internal", request_id, "request")


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "a\\n", "<script>", "ü", "a;b", "{}", "a\tb"])
async def test_a_malformed_id_is_replaced(api: Api, given: str) -> None:
    response = await api.http.get("/vms", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert UUID.fullmatch(response.headers["x-request-id"])
    problem = assert_problem(await api.http.get("/vms/none", headers=[(b"X-Request-ID", given.encode("latin-1"))]), 404)
    assert UUID.fullmatch(problem["request_id"])


async def test_logs_are_json_with_the_id_and_without_secrets(api: Api, fake_stack: FakeStack) -> None:
    secret = new_name("sesame")
    fields: dict[str, Any] = {
        "user_data": f"#!/bin/sh\necho {secret}\n",
        "files": [{"path": "/root/key", "content": secret}],
        "password_hash": "$6$saltsalt$" + "S3cretHash" * 8,
    }
    vm = await api.create(**fields)
    assert_problem(await api.post_vm(vm["name"], **fields), 409, "name_taken")
    assert_problem(await api.post_vm(image="nothing", **fields), 422)
    assert_problem(await api.post_vm(**{**fields, "password_hash": secret}), 422)
    assert_problem(await api.http.post("/vms", content=f'{{"name": "{secret}'.encode()), 400)
    await api.http.get("/vms", headers={"Authorization": f"Bearer {secret}"})
    worlds, bug = fake_stack.worlds, ("before-ensure_defined", "nonsense")
    with worlds["hv1"].fault(*bug), worlds["hv2"].fault(*bug):
        assert_problem(await api.post_vm(**fields), 500)
    secrets = [secret, "S3cretHash", fake_stack.token, fake_stack.tier_secret.decode()]
    secrets += [path.read_text().strip() for path in fake_stack.settings.layout.secrets.iterdir()]
    for log in fake_stack.settings.layout.log.glob("*.log"):
        text = log.read_text(errors="replace")
        for one in secrets:
            assert one not in text, f"{log.name} holds a secret"
    for service in SERVICES:
        for line in fake_stack.log(service).split("\n")[:-1]:
            entry = json.loads(line)
            assert entry["event"] and entry["level"] and entry["timestamp"].endswith("Z")
            if entry["event"] == "request":
                assert entry["request_id"] and entry["status"] and "ms" in entry
