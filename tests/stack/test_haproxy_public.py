"""The public edge: headers, retries, its own answers."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from haproxy_process import haproxy
from stand_in_server import Reply, StandIn

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.fixture
async def nodes() -> AsyncIterator[list[StandIn]]:
    nodes = [StandIn("ext1"), StandIn("ext2")]
    for node in nodes:
        await node.start()
    yield nodes
    for node in nodes:
        await node.stop()


@pytest.fixture
async def edge(nodes: list[StandIn], tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with haproxy("public", nodes, tmp_path) as client:
        yield client


def received(nodes: list[StandIn], path: str) -> dict[str, str]:
    (request,) = [request for node in nodes for request in node.requests if request.path == path]
    return request.headers


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["title"] and problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_both_nodes_share_the_work(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    names = [(await edge.get("/api/v1/vms")).text for _ in range(20)]
    assert names.count("ext1") == names.count("ext2") == 10


async def test_headers_of_a_change(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    forged = {"X-Terrace-Node": "hv1", "x-terrace-project": "2", "X-Forwarded-For": "203.0.113.9"}
    response = await edge.post("/api/v1/vms", json={"name": "a"}, headers=forged)
    headers = received(nodes, "/api/v1/vms")
    assert not [name for name in headers if name.startswith("x-terrace")]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert re.fullmatch(f"auto-{UUID}", headers["idempotency-key"])
    assert re.fullmatch(UUID, headers["x-request-id"])
    assert response.headers["x-request-id"] == headers["x-request-id"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_every_change_has_a_key(edge: httpx.AsyncClient, nodes: list[StandIn], method: str) -> None:
    await edge.request(method, "/api/v1/vms/1")
    assert "idempotency-key" in received(nodes, "/api/v1/vms/1")


async def test_reads_have_no_key(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    await edge.get("/api/v1/vms/1")
    assert "idempotency-key" not in received(nodes, "/api/v1/vms/1")


async def test_a_callers_own_key_and_id_are_kept(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    await edge.post("/api/v1/vms", json={}, headers={"Idempotency-Key": "mine", "X-Request-ID": "trace-1"})
    headers = received(nodes, "/api/v1/vms")
    assert headers["idempotency-key"] == "mine"
    assert headers["x-request-id"] == "trace-1"


@pytest.mark.parametrize("harmful", ['"},{"', "a b", "x" * 65, "%00"])
async def test_a_harmful_request_id_is_replaced(edge: httpx.AsyncClient, nodes: list[StandIn], harmful: str) -> None:
    await edge.get("/api/v1/vms", headers={"X-Request-ID": harmful})
    assert re.fullmatch(UUID, received(nodes, "/api/v1/vms")["x-request-id"])


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/metrics?x=1"])
async def test_metrics_are_not_public(edge: httpx.AsyncClient, nodes: list[StandIn], path: str) -> None:
    url = httpx.URL(scheme="http", host="127.0.0.1", port=edge.base_url.port, raw_path=path.encode())
    assert_problem(await edge.get(url), 404, "not_found")
    assert not [request for node in nodes for request in node.requests]


async def test_what_the_tiers_tell_each_other_stays_inside(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    for node in nodes:
        node.reply = lambda request: Reply(headers={"X-Terrace-Refused": "cpu", "X-Other": "1"})
    response = await edge.get("/api/v1/vms")
    assert "x-terrace-refused" not in response.headers
    assert response.headers["x-other"] == "1"


async def test_the_largest_body_reaches_the_second_node_when_the_first_dies(
    edge: httpx.AsyncClient, nodes: list[StandIn]
) -> None:
    """A body of 256 KiB is buffered whole, so it can be sent again, with the same key."""
    calls = 0

    def first_call_dies(request: object) -> Reply:
        nonlocal calls
        calls += 1
        return Reply(hang_up=calls == 1, status=201)

    for node in nodes:
        node.reply = first_call_dies
    body = json.dumps({"user_data": "x" * (256 * 1024 - 100)}).encode()
    response = await edge.post("/api/v1/vms", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201
    (one,), (other,) = nodes[0].requests, nodes[1].requests
    assert one.body == other.body == body
    assert one.headers["idempotency-key"] == other.headers["idempotency-key"]


async def test_a_killed_node_is_not_noticed(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    await nodes[0].stop()
    responses = [await edge.post("/api/v1/vms", json={}) for _ in range(20)]
    assert [response.status_code for response in responses] == [200] * 20
    assert {response.text for response in responses} == {"ext2"}


async def test_no_node_at_all(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    for node in nodes:
        await node.stop()
    response = await edge.get("/api/v1/vms", headers={"X-Request-ID": "mine"})
    assert_problem(response, 503, "service_unavailable")
    assert response.headers["retry-after"] == "1"
    assert response.json()["request_id"] == "mine"


async def test_an_upload_is_streamed_and_never_repeated(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    for node in nodes:
        node.reply = lambda request: Reply(hang_up=True)
    response = await edge.post(
        "/api/v1/images?name=a",
        content=b"q" * 1_000_000,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert_problem(response, 502, "bad_gateway")
    assert len([request for node in nodes for request in node.requests]) == 1


async def test_an_image_by_url_is_an_ordinary_request(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    await nodes[0].stop()
    for _ in range(4):
        assert (await edge.post("/api/v1/images", json={"name": "a"})).text == "ext2"


async def test_health_is_a_nodes_health(edge: httpx.AsyncClient, nodes: list[StandIn]) -> None:
    assert (await edge.get("/healthz")).status_code == 200
    assert [request.path for node in nodes for request in node.requests] == ["/healthz"]
