"""The way into the internal tier: placement by weight and refusal, owners, changes, uploads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from haproxy_process import haproxy
from stand_in_server import Reply, StandIn

CREATE = "/internal/v1/vms"
UPLOAD = "/internal/v1/images/upload"
OWNER_ONLY = {"X-Terrace-Owner-Only": "1"}


@pytest.fixture
async def nodes() -> AsyncIterator[list[StandIn]]:
    nodes = [StandIn("hv1"), StandIn("hv2")]
    for node in nodes:
        await node.start()
    yield nodes
    for node in nodes:
        await node.stop()


async def names(client: httpx.AsyncClient, method: str, path: str, count: int, node: str | None = None) -> Counter[str]:
    """Which nodes answered, how often."""
    headers = {"X-Terrace-Node": node} if node else {}
    return Counter([(await client.request(method, path, headers=headers)).text for _ in range(count)])


async def test_placement_follows_the_agents(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[0].agent_word, nodes[1].agent_word = "up 80%", "up 20%"
    async with haproxy("internal", nodes, tmp_path) as client:
        assert await names(client, "POST", CREATE, 100) == {"hv1": 80, "hv2": 20}


async def test_a_drained_node_gets_no_vm_but_its_changes(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[0].agent_word = "drain"
    async with haproxy("internal", nodes, tmp_path) as client:
        assert await names(client, "POST", CREATE, 10) == {"hv2": 10}
        assert await names(client, "DELETE", f"{CREATE}/1", 5, node="hv1") == {"hv1": 5}
        assert (await names(client, "PUT", UPLOAD, 10))["hv1"] == 5
        response = await client.get("/internal/v1/console", headers={"X-Terrace-Node": "hv1", **OWNER_ONLY})
        assert response.text == "hv1"
        nodes[0].agent_word = "ready up 100%"
        await asyncio.sleep(1.5)
        assert (await names(client, "POST", CREATE, 10))["hv1"] == 5


async def test_a_refused_claim_goes_to_another_node(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[0].reply = lambda request: Reply(425, {"X-Terrace-Refused": "cpu"})
    async with haproxy("internal", nodes, tmp_path) as client:
        assert await names(client, "POST", CREATE, 10) == {"hv2": 10}
        assert nodes[0].requests, "the refusing node was never asked"


async def test_when_all_refuse_the_reason_comes_back(nodes: list[StandIn], tmp_path: Path) -> None:
    for node in nodes:
        node.reply = lambda request: Reply(425, {"X-Terrace-Refused": "ram"})
    async with haproxy("internal", nodes, tmp_path) as client:
        response = await client.post(CREATE, json={})
        assert response.status_code == 425
        assert response.headers["x-terrace-refused"] == "ram"
        assert {request.path for node in nodes for request in node.requests} == {CREATE}
        assert all(node.requests for node in nodes), "both must have been asked"


async def test_a_create_with_a_hint_goes_there_and_is_final(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[1].reply = lambda request: Reply(425)
    async with haproxy("internal", nodes, tmp_path) as client:
        response = await client.post(CREATE, json={}, headers={"X-Terrace-Node": "hv2"})
        assert response.status_code == 425
        assert (len(nodes[0].requests), len(nodes[1].requests)) == (0, 1)


async def test_a_node_that_dies_during_a_create(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[0].reply = lambda request: Reply(hang_up=True)
    async with haproxy("internal", nodes, tmp_path) as client:
        body = b"x" * 256 * 1024
        responses = [await client.post(CREATE, content=body) for _ in range(4)]
        assert {response.text for response in responses} == {"hv2"}
        assert nodes[0].requests[0].body == body


async def test_a_change_reaches_the_named_node_or_else_any(nodes: list[StandIn], tmp_path: Path) -> None:
    async with haproxy("internal", nodes, tmp_path) as client:
        assert await names(client, "DELETE", f"{CREATE}/1", 6, node="hv2") == {"hv2": 6}
        await nodes[1].stop()
        assert await names(client, "DELETE", f"{CREATE}/1", 6, node="hv2") == {"hv1": 6}
        assert await names(client, "DELETE", f"{CREATE}/1", 2, node="hv9") == {"hv1": 2}


async def test_the_owner_or_nobody(nodes: list[StandIn], tmp_path: Path) -> None:
    nodes[1].reply = lambda request: Reply(hang_up=True)
    async with haproxy("internal", nodes, tmp_path) as client:

        async def ask(node: str) -> httpx.Response:
            return await client.get("/internal/v1/console", headers={"X-Terrace-Node": node, **OWNER_ONLY})

        assert (await ask("hv1")).text == "hv1"
        assert (await ask("hv2")).status_code == 502, "an answer that got lost is not asked for again"
        assert len(nodes[1].requests) == 1
        await nodes[1].stop()
        for _ in range(3):
            response = await ask("hv2")
            assert response.status_code == 503
            assert response.json()["code"] == "service_unavailable"
            assert response.headers["retry-after"] == "1"
        assert (await ask("hv9")).status_code == 503
        assert (await client.get("/internal/v1/console", headers=OWNER_ONLY)).status_code == 503


async def test_an_unready_node_gets_nothing(nodes: list[StandIn], tmp_path: Path) -> None:
    async with haproxy("internal", nodes, tmp_path) as client:
        nodes[0].ready = False
        await asyncio.sleep(1.5)
        for method, path in (
            ("POST", CREATE),
            ("GET", "/internal/v1/x"),
            ("PUT", UPLOAD),
        ):
            assert await names(client, method, path, 4) == {"hv2": 4}
        nodes[0].ready = True
        await asyncio.sleep(0.8)
        assert (await names(client, "POST", CREATE, 4))["hv1"] == 2


async def test_an_upload_is_sent_once(nodes: list[StandIn], tmp_path: Path) -> None:
    for node in nodes:
        node.reply = lambda request: Reply(hang_up=True)
    async with haproxy("internal", nodes, tmp_path) as client:
        response = await client.put(UPLOAD, content=b"q" * 2_000_000)
        assert response.status_code == 502
        assert sum(len(node.requests) for node in nodes) == 1
