"""Lists: pages, cursors, filters."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.problems import assert_problem


async def test_pages_have_no_gap_and_nothing_twice_while_vms_are_made(api: Api) -> None:
    before = [vm["id"] for vm in await asyncio.gather(*(api.create() for _ in range(12)))]

    async def make() -> None:
        for _ in range(5):
            await api.create()

    making = asyncio.gather(make(), make())
    seen: list[int] = []
    async for page in api.pages("/vms?limit=3"):
        assert 1 <= len(page) <= 3
        seen += [vm["id"] for vm in page]
    await making
    assert seen == sorted(set(seen))
    assert set(before) <= set(seen)
    assert len(await api.all("/vms?limit=4")) == 22


async def test_the_last_full_page_has_no_link(api: Api) -> None:
    await asyncio.gather(*(api.create() for _ in range(4)))
    for limit, wanted in ((4, [4]), (2, [2, 2]), (3, [3, 1]), (1000, [4])):
        assert [len(page) async for page in api.pages(f"/vms?limit={limit}")] == wanted
    assert "link" not in (await api.http.get("/vms?limit=4")).headers


async def test_a_link_keeps_its_filters(api: Api) -> None:
    await asyncio.gather(*(api.create(labels={"n": str(i % 2), "k": "v"}) for i in range(6)))
    found = await api.all("/vms?limit=1&label=n=1&status=running&label=k")
    assert [vm["labels"]["n"] for vm in found] == ["1", "1", "1"]


async def test_an_empty_list(api: Api) -> None:
    response = await api.http.get("/vms")
    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/vms", "/operations", "/images", "/ssh-keys"])
@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5", "99999999999999999999", "1e2", "0x10"])
async def test_limits_out_of_bounds_are_refused(api: Api, path: str, limit: str) -> None:
    problem = assert_problem(await api.http.get(path, params={"limit": limit}), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "limit"


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["/vms", "/operations", "/images", "/ssh-keys"])
@pytest.mark.parametrize(
    "wrong",
    [
        *("", "x", "%", "AAAA", "====", "ü", "\x00", "-1", "1", "a b", "x" * 200, "x" * 5000, "null", "' or 1=1"),
        *(
            cursor(text)
            for text in ("v1:", "v1:-1", "v1:x", "v2:1", "v1:9223372036854775808", "v1:" + "9" * 40, "v1:1.0")
        ),
    ],
)
async def test_cursors_that_we_did_not_give_out_are_refused(api: Api, path: str, wrong: str) -> None:
    assert_problem(await api.http.get(path, params={"cursor": wrong}), 400, "bad_cursor")


async def test_a_cursor_behind_the_end_is_an_empty_page(api: Api) -> None:
    assert await api.get(f"/vms?cursor={cursor('v1:9223372036854775807')}") == []


async def test_filters_and_what_they_find(api: Api) -> None:
    prod, test, bare = await asyncio.gather(
        api.create(labels={"env": "prod", "tier": "web"}), api.create(labels={"env": "test"}), api.create()
    )
    assert (await api.act(test, "poweroff")).status_code == 200
    node = prod["node"]

    async def ids(query: str) -> set[int]:
        return {vm["id"] for vm in await api.all(f"/vms?{query}")}

    everyone = {vm["id"] for vm in (prod, test, bare)}
    assert await ids("status=running") == {prod["id"], bare["id"]}
    assert await ids("status=stopped") == {test["id"]}
    assert await ids("status=running&status=stopped") == everyone
    assert await ids("status=error") == set()
    assert await ids(f"node={node}") == {vm["id"] for vm in (prod, test, bare) if vm["node"] == node}
    assert await ids("node=nowhere") == set()
    assert await ids("label=env=prod") == {prod["id"]}
    assert await ids("label=env") == {prod["id"], test["id"]}
    assert await ids("label=env=prod&label=tier=web") == await ids("label=env=prod,tier=web") == {prod["id"]}
    assert await ids("label=env=prod&label=tier=db") == set()
    assert await ids(f"label=env=prod&status=running&node={node}") == {prod["id"]}
    assert await ids("label=env=prod&status=stopped") == set()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"status": "flying"}, 422),
        ({"status": ""}, 422),
        ({"status": "RUNNING"}, 422),
        ({"node": ""}, 422),
        ({"node": "\x00"}, 422),
        ({"node": "x" * 64}, 422),
        ({"label": ""}, 400),
        ({"label": "=x"}, 400),
        ({"label": "a=b c"}, 400),
        ({"label": "a=\x00"}, 400),
        ({"label": "ü=1"}, 400),
        ({"label": "a=1,"}, 400),
        ({"label": ["a=1", "a=2"]}, 400),
        ({"label": "k" * 64}, 400),
    ],
)
async def test_filters_that_mean_nothing_are_refused(api: Api, query: dict[str, Any], status: int) -> None:
    assert_problem(
        await api.http.get("/vms", params=query), status, "bad_filter" if status == 400 else "invalid_request"
    )


REFS = [
    *("0", "-1", "9223372036854775808", "99999999999999999999999", "1.0", "1e3", "+1", "%D9%A3", "%EF%BC%91"),
    *(
        "none",
        "UPPER",
        "-a",
        "a_b",
        "a.b",
        "a" * 64,
        "a" * 4000,
        "%C3%BC",
        "%ff",
        "%00",
        "a%00b",
        "%0a",
        "a%0a",
        "%20",
        "%25",
    ),
    *(
        "a%2Fb",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%F0%9F%98%80",
        "%ED%A0%80",
        "a;b",
        "a&b",
        "a=b",
        "'--",
        "*",
        "~",
    ),
]


@pytest.mark.parametrize("ref", REFS)
@pytest.mark.parametrize("kind", ["vms", "operations", "images", "ssh-keys", "networks", "nodes"])
async def test_things_that_are_not_there(api: Api, fake_stack: FakeStack, kind: str, ref: str) -> None:
    url = f"{fake_stack.url}/api/v1/{kind}/{ref}"
    methods = ["GET"] if kind in ("operations", "nodes") else ["GET", "DELETE"]
    if kind == "nodes" and "%2f" in ref.lower():
        methods = []  # that is the path of an action
    for method in methods:
        request = api.http.build_request(method, fake_stack.url)
        request.url = request.url.copy_with(raw_path=url.removeprefix(fake_stack.url).encode())
        assert_problem(await api.http.send(request), 404, "not_found")


@pytest.mark.parametrize("ref", REFS)
async def test_actions_and_operations_of_vms_that_are_not_there(api: Api, fake_stack: FakeStack, ref: str) -> None:
    request = api.http.build_request("POST", fake_stack.url)
    request.url = request.url.copy_with(raw_path=f"/api/v1/vms/{ref}/actions/start".encode())
    assert_problem(await api.http.send(request), 404, "not_found")
    response = await api.http.get(f"/operations?vm={ref.replace('&', '%26').replace('+', '%2b')}")
    if response.status_code == 200:
        assert ref.isdigit() and response.json() == []
    else:
        assert response.status_code in (404, 422)
        assert_problem(response, response.status_code)


async def test_the_list_shows_vms_of_all_nodes_in_every_state(api: Api) -> None:
    vms = await asyncio.gather(*(api.create(new_name()) for _ in range(8)))
    assert {vm["node"] for vm in vms} == {"hv1", "hv2"}
    await asyncio.gather(*(api.act(vm, "poweroff") for vm in vms[::2]))
    listed = await api.get("/vms")
    assert [vm["id"] for vm in listed] == sorted(vm["id"] for vm in vms)
    assert sorted(vm["status"] for vm in listed) == ["running"] * 4 + ["stopped"] * 4
    assert listed == [await api.get(f"/vms/{vm['id']}") for vm in listed]
