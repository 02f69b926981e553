"""Health, and what clients see when parts are away."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import httpx
import pytest
from support.api import Api
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem


async def test_health_names_each_dependency(api: Api, fake_stack: FakeStack) -> None:
    for url in (fake_stack.url, *fake_stack.external_urls):
        assert (await api.http.get(f"{url}/healthz")).json() == {"status": "ok"}
        assert (await api.http.get(f"{url}/readyz")).json() == {
            "ready": True,
            "checks": {"postgres": {"ok": True}, "redis": {"ok": True}},
        }
    for url in (fake_stack.internal_url, *fake_stack.internal_urls.values()):
        ready = (await api.http.get(f"{url}/readyz")).json()
        assert ready["ready"] is True
        assert ready["checks"] == {name: {"ok": True} for name in ("postgres", "redis", "hypervisor", "storage")}


async def test_metrics_stay_inside(api: Api, fake_stack: FakeStack) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/metrics?x=1", "/metrics%2f", "/METRICS"):
        request = api.http.build_request("GET", fake_stack.url)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert_problem(await api.http.send(request), 404, "not_found")
    for url in (*fake_stack.external_urls, *fake_stack.internal_urls.values()):
        text = (await api.http.get(f"{url}/metrics")).text
        assert "terrace_http_requests_total" in text
        assert "/api/v1/vms/1" not in text, "labels are bounded: templates, never paths"


async def redis_is(api: Api, fake_stack: FakeStack, ok: bool) -> None:
    async def told() -> bool:
        answers = [
            (await api.http.get(f"{url}/readyz"))
            for url in (*fake_stack.external_urls, *fake_stack.internal_urls.values())
        ]
        assert all(answer.status_code == 200 for answer in answers), "Redis' loss makes nobody unready"
        return all(answer.json()["checks"]["redis"]["ok"] is ok for answer in answers)

    await eventually(told)


async def test_without_redis_everything_works(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    fake_stack.control.stop("redis")
    try:
        await redis_is(api, fake_stack, ok=False)
        other = await api.create()
        for one in (vm, other):
            assert (await api.act(one, "stop")).json()["status"] == "stopped"
            assert (await api.act(one, "start")).json()["status"] == "running"
            assert (await api.get(f"/vms/{one['id']}"))["id"] == one["id"]
        assert len(await api.get("/vms")) == 2
        assert (await api.http.delete(f"/vms/{other['name']}")).status_code == 204
    finally:
        fake_stack.control.start("redis")
        fake_stack.control.wait("redis")
    await redis_is(api, fake_stack, ok=True)


@pytest.mark.parametrize("kill", [True, False])
async def test_postgresql_goes_and_comes_back(api: Api, fake_stack: FakeStack, kill: bool) -> None:
    vm = await api.create()
    if kill:
        fake_stack.control.kill("postgres", signal.SIGKILL)
        fake_stack.control.wait("postgres")
    else:
        fake_stack.control.stop("postgres")
        try:
            codes: set[str] = set()

            async def haproxy_knows() -> bool:
                for response in (await api.http.get("/vms"), await api.post_vm(), await api.act(vm, "stop")):
                    codes.add(assert_problem(response, 503)["code"])
                return "service_unavailable" in codes

            await eventually(haproxy_knows)
            assert codes == {"database_unavailable", "service_unavailable"}
            ready = await api.http.get(f"{fake_stack.external_urls[0]}/readyz")
            assert (ready.status_code, ready.json()["checks"]["postgres"]) == (503, {"ok": False})
            for url in (*fake_stack.external_urls, *fake_stack.internal_urls.values()):
                assert (await api.http.get(f"{url}/healthz")).status_code == 200, "the process lives on"
        finally:
            fake_stack.control.start("postgres")
            fake_stack.control.wait("postgres")
    restarts = {one.name: one.restarts for one in fake_stack.control.status()}

    since = time.monotonic()

    async def works_for_two_seconds() -> bool:
        """HAProxy may take a node that missed PostgreSQL for down a moment after PostgreSQL is back."""
        nonlocal since
        for response in (await api.http.get("/vms"), await api.act(vm, "reboot")):
            if response.status_code != 200:
                # the newest progress may be lost in a crash: then the operation is gone through once more
                assert_problem(response, 409 if kill and response.status_code == 409 else 503)
                since = time.monotonic()
        return time.monotonic() - since > 2

    await eventually(works_for_two_seconds, within_s=40, every_s=0.1)
    after = {one.name: one.restarts for one in fake_stack.control.status()}
    for name in ("external1", "external2", "internal1", "internal2"):
        assert after[name] == restarts[name], "nobody had to be started again"
    for name in ("external1", "external2", "internal1", "internal2"):
        assert '"unhandled"' not in fake_stack.log(name)


async def test_without_external_nodes_haproxy_answers(api: Api, fake_stack: FakeStack) -> None:
    fake_stack.control.stop("external1", "external2")
    try:
        for method, path in (("GET", "/vms"), ("POST", "/vms"), ("DELETE", "/vms/1"), ("POST", "/images?name=x")):
            response = await api.http.request(
                method, path, content=b"x" * 512, headers={"Content-Type": "application/octet-stream"}
            )
            assert_problem(response, 503, "service_unavailable")
    finally:
        fake_stack.control.start("external1", "external2")
        fake_stack.control.wait("external1", "external2")
    await works(api)


async def works(api: Api) -> None:
    async def is_created() -> bool:
        return (await api.post_vm()).status_code == 201

    await eventually(is_created)


async def test_without_internal_nodes_reads_go_on(api: Api, fake_stack: FakeStack) -> None:
    vm = await api.create()
    fake_stack.control.stop("internal1", "internal2")
    try:
        assert await api.get("/vms") == [vm]
        key = {
            "name": "k1",
            "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Wm1hk8tDZ0Gu4PHWvIWl6JYXWk5nCQvCVIVCvEeQy",
        }
        responses: list[httpx.Response] = [
            await api.post_vm(),
            await api.act(vm, "stop"),
            await api.http.delete(f"/vms/{vm['id']}"),
            await api.http.post("/ssh-keys", json=key),
            await api.http.post(
                "/images?name=x1", content=b"x" * 512, headers={"Content-Type": "application/octet-stream"}
            ),
        ]
        for response in responses:
            assert_problem(response, 503, "service_unavailable")
        assert (await api.http.get(f"{fake_stack.url}/readyz")).status_code == 200
    finally:
        fake_stack.control.start("internal1", "internal2")
        fake_stack.control.wait("internal1", "internal2")
    await works(api)
    assert (await api.act(vm, "stop")).json()["status"] == "stopped"
    assert_problem(await api.http.get("/ssh-keys/k1"), 404)


async def test_the_internal_proxy_restarts_under_load(api: Api, fake_stack: FakeStack) -> None:
    """Connections between the tiers break; the one client between them asks again."""
    results: list[Any] = []

    async def make() -> None:
        for _ in range(10):
            results.append(await api.post_vm())

    making = asyncio.gather(*(make() for _ in range(4)))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(fake_stack.control.kill, "haproxy-internal", signal.SIGKILL)
    await making
    assert {response.status_code for response in results} <= {201, 503}
    assert sum(response.status_code == 201 for response in results) >= 30
    fake_stack.control.wait("haproxy-internal")
    assert len(await api.all("/vms")) >= sum(response.status_code == 201 for response in results)
