"""What a pool holds and the records do not, and the other way round: seen, told, and put away if it is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.api import Api
from support.fake_stack import FakeStack, World
from support.polling import eventually
from support.problems import assert_problem

Database = Any  # asyncpg.Connection is generic in its stubs only
KINDS = ("root", "seed", "data")


def folder_of(name: str) -> str:
    return "blobs" if name.endswith("-seed") else "volumes"


class Litter:
    """Things in a node's pool that no record speaks of."""

    def __init__(self, world: World, cloud: str) -> None:
        self._world = world
        self._cloud = cloud

    def put(self, kind: str = "data", cloud: str = "", name: str = "") -> str:
        """One thing with the mark of a cloud, our own if none is given; returns its name."""
        name = name or f"{uuid4()}-{kind}"
        value = {"image": None, "size_gib": 1, "cloud": cloud or self._cloud, "snapshots": {}, "content": ""}
        self._world.write(folder_of(name), name, value)
        return name

    def is_there(self, name: str) -> bool:
        return name in self._world.names(folder_of(name))

    def is_retired(self, name: str) -> bool:
        return name in self._world.names("retired") and not self.is_there(name)

    def clear(self) -> None:
        for kind in ("volumes", "blobs", "retired"):
            for name in self._world.names(kind):
                (self._world.folder / kind / name).unlink()


@pytest.fixture
async def litter(api: Api, fake_stack: FakeStack, database: Database) -> AsyncIterator[Litter]:
    """In the pool of hv1, which is clean before and after."""
    found = Litter(fake_stack.worlds["hv1"], str(await database.fetchval("select id from cloud")))
    yield found
    await api.delete_all_vms()
    found.clear()

    async def is_clean() -> bool:
        response = await clean(api)  # a node that has just started may not be asked yet
        return response.status_code == 200 and response.json()["differences"] == []

    await eventually(is_clean)


async def clean(api: Api, node: str = "hv1", **headers: str) -> httpx.Response:
    return await api.http.post(f"/nodes/{node}/drift/clean", headers=headers)


async def drift(api: Api, node: str = "hv1") -> dict[str, str]:
    """Kinds by name, as the last check found them."""
    return {one["name"]: one["kind"] for one in (await api.get(f"/nodes/{node}/drift"))["differences"]}


async def test_orphans_are_put_away_and_others_things_stay(api: Api, litter: Litter) -> None:
    vm = await api.create_on("hv1")
    volume = await api.attached(vm)
    orphans = {litter.put(kind) for kind in KINDS}
    foreign = {litter.put(kind, str(uuid4())) for kind in KINDS}
    before = await api.get("/nodes/hv1/drift")
    response = await clean(api)
    assert response.status_code == 200, response.text
    report = response.json()
    assert report.keys() == {"node", "pool", "storage", "checked_at", "differences"}
    assert (report["node"], report["storage"]) == ("hv1", "fake")
    assert report["pool"] == (await api.get("/nodes/hv1"))["pool"]
    assert report["checked_at"] >= (before["checked_at"] or "")
    assert {one["name"]: one["kind"] for one in report["differences"]} == dict.fromkeys(foreign, "foreign")
    for one in report["differences"]:
        assert one["first_seen"] <= one["last_seen"]
    assert await api.get("/nodes/hv1/drift") == report
    assert await drift(api, "hv2") == {}
    assert all(litter.is_retired(name) for name in orphans)
    assert all(litter.is_there(name) for name in foreign)
    [op] = [op for op in await api.get("/operations?limit=5") if op["kind"] == "pool_clean"]
    assert (op["state"], op["node"], set(op["result"]["retired"])) == ("succeeded", "hv1", orphans)
    assert (await api.act(vm, "reset")).status_code == 200
    assert (await api.detach(volume)).status_code == 200

    known = report["differences"]
    again = (await clean(api)).json()["differences"]
    assert [one["first_seen"] for one in again] == [one["first_seen"] for one in known]
    assert len([op for op in await api.get("/operations?limit=9") if op["kind"] == "pool_clean"]) == 1


async def test_what_the_pool_has_lost_is_missing(
    api: Api, fake_stack: FakeStack, database: Database, litter: Litter
) -> None:
    vm = await api.create_on("hv1")
    volume = await api.attached(vm)
    world = fake_stack.worlds["hv1"]
    root = f"{await database.fetchval('select uuid from vms where id = $1', vm['id'])}-root"
    data = f"{await database.fetchval('select uuid from volumes where id = $1', volume['id'])}-data"
    kept = {name: world.read("volumes", name) for name in (root, data)}
    for name in kept:
        (world.folder / "volumes" / name).unlink()
    assert (await clean(api)).status_code == 200
    assert await drift(api) == {root: "missing", data: "missing"}
    world.write("volumes", root, kept[root])
    assert (await clean(api)).status_code == 200
    assert await drift(api) == {data: "missing"}
    assert (await api.detach(volume)).status_code == 200
    assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204
    assert (await clean(api)).json()["differences"] == []


async def test_nothing_is_put_away_while_an_operation_is_at_work(
    api: Api, fake_stack: FakeStack, litter: Litter
) -> None:
    vm, volume, orphan = await api.create_on("hv1"), await api.create_volume(), litter.put()
    with fake_stack.worlds["hv1"].fault("before-attach_disk", "sleep 0.7"):
        attaching = await api.attach(volume, vm, prefer="wait=0")
        assert_problem(await clean(api), 409, "pool_busy")
        assert await drift(api) == {orphan: "orphan"}, "it was compared all the same"
        assert litter.is_there(orphan)
        assert (await clean(api, "hv2")).status_code == 200, "the other pool is not at work"
    assert (await api.operation(attaching))["state"] == "succeeded"
    assert (await clean(api)).json()["differences"] == []
    assert litter.is_retired(orphan)


async def test_what_changes_hands_is_seen_anew(
    api: Api, fake_stack: FakeStack, database: Database, litter: Litter
) -> None:
    name, theirs = litter.put(cloud=str(uuid4())), litter.put(cloud=str(uuid4()))
    [first, other] = sorted((await clean(api)).json()["differences"], key=lambda one: one["name"] != name)
    await database.execute("update pool_drift set first_seen = now() - interval '1 day', kind = 'orphan'")
    [again, _] = sorted((await clean(api)).json()["differences"], key=lambda one: one["name"] != name)
    assert (first["kind"], again["kind"], other["name"]) == ("foreign", "foreign", theirs)
    assert again["first_seen"] >= first["first_seen"]


async def test_what_goes_during_a_check_is_no_difference(api: Api, fake_stack: FakeStack, litter: Litter) -> None:
    gone = litter.put()
    with fake_stack.worlds["hv1"].fault("after-list_volumes", "sleep 0.3"):
        cleaning = asyncio.create_task(clean(api))
        await asyncio.sleep(0.15)
        litter.clear()
        response = await cleaning
    assert response.status_code == 200, response.text
    assert gone not in response.text


async def test_who_does_not_wait_gets_the_operation(api: Api, fake_stack: FakeStack, litter: Litter) -> None:
    orphan = litter.put()
    with fake_stack.worlds["hv1"].fault("before-retire", "sleep 0.4"):
        response = await clean(api, prefer="respond-async")
    assert response.status_code == 202
    assert [one["kind"] for one in response.json()["differences"]] == ["orphan"]
    assert (await api.operation(response))["result"] == {"retired": [orphan]}
    assert await drift(api) == {}


async def test_two_who_clean_at_once(api: Api, litter: Litter) -> None:
    orphans = {litter.put() for _ in range(5)}
    responses = await asyncio.gather(*(clean(api) for _ in range(4)))
    assert [response.status_code for response in responses] == [200] * 4, responses
    assert all(litter.is_retired(name) for name in orphans)
    assert await drift(api) == {}


async def test_a_node_that_is_away_can_not_be_cleaned(api: Api, fake_stack: FakeStack) -> None:
    fake_stack.control.stop("internal1")
    try:
        assert_problem(await clean(api), 503, "service_unavailable")
        assert (await api.http.get("/nodes/hv1/drift")).status_code == 200
    finally:
        fake_stack.control.start("internal1")
        fake_stack.control.wait("internal1")


async def test_who_may_and_where(api: Api, fake_stack: FakeStack) -> None:
    for path in ("/nodes/hv9/drift", "/nodes/%00/drift", "/nodes/1/drift"):
        assert_problem(await api.http.get(path), 404, "not_found")
        assert_problem(await api.http.post(f"{path}/clean"), 404, "not_found")
    assert_problem(await api.http.post("/nodes/hv1/drift"), 405, "method_not_allowed")
    assert_problem(await api.http.get("/nodes/hv1/drift/clean"), 405, "method_not_allowed")
    async with Api.open(fake_stack.url, await fake_stack.new_project("member")) as member:
        assert_problem(await member.http.get("/nodes/hv1/drift"), 403, "forbidden")
        assert_problem(await clean(member), 403, "forbidden")


@pytest.fixture
async def watchful(fake_stack: FakeStack, litter: Litter) -> AsyncIterator[None]:
    """A node that compares all the time, and puts orphans away at once."""
    settings = {"pool_check_s": 0.05, "orphan_grace_s": 0, "retired_kept_s": 86_400}
    await asyncio.to_thread(fake_stack.restart_node, "hv1", **settings)
    yield
    await asyncio.to_thread(fake_stack.restart_node, "hv1")


async def metrics(stack: FakeStack) -> dict[str, float]:
    """The drift of hv1's pool, as its node tells Prometheus."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{stack.internal_urls['hv1']}/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("terrace_pool_drift{")]
    return {kind: float(value) for name, value in lines for kind in KINDS_OF_DRIFT if f'kind="{kind}"' in name}


KINDS_OF_DRIFT = ("orphan", "missing", "foreign")


async def test_a_node_looks_after_its_pool_by_itself(
    api: Api, fake_stack: FakeStack, litter: Litter, watchful: None
) -> None:
    orphan, foreign = litter.put(), litter.put(cloud=str(uuid4()))

    async def is_put_away() -> bool:
        return litter.is_retired(orphan)

    await eventually(is_put_away)

    async def is_told() -> bool:
        return await metrics(fake_stack) == {"orphan": 0, "missing": 0, "foreign": 1}

    await eventually(is_told)
    assert await drift(api) == {foreign: "foreign"}
    assert (await api.get("/nodes/hv1/drift"))["checked_at"]
    assert litter.is_there(foreign)

    async def come_and_go() -> None:
        vm = await api.create(volumes=[{"name": f"data-{uuid4()}", "size_gib": 1, "delete_with_vm": True}])
        volume = await api.attached(vm)
        await api.snapshot(vm)
        assert (await api.http.delete(f"/vms/{vm['id']}")).status_code == 204
        assert (await api.http.delete(f"/volumes/{volume['id']}")).status_code == 204

    await asyncio.gather(*(come_and_go() for _ in range(12)))
    retired = [name for name in fake_stack.worlds["hv1"].names("retired") if name != orphan]
    assert retired == [], "nothing that is at work was ever taken for an orphan"

    async def is_calm() -> bool:
        return await drift(api) == {foreign: "foreign"}

    await eventually(is_calm)
