"""Bytes of images: who may rely on them, and that they leave in the end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_bench import IMAGE, FakeBench
from support.node_world import GIB, bare_host, seed_cloud
from support.polling import eventually
from support.postgres import Connection, Database

from internal_api.caller import Caller
from internal_api.drivers.fake import FakeStorage
from internal_api.drivers.protocols import ImageFacts
from internal_api.host import Host
from internal_api.reconcile.housekeeping import remove_unwanted_images
from internal_api.routes import images as image_routes
from internal_api.workflows import image_bytes, import_image
from terrace.engine import testing
from terrace.engine.testing import ALWAYS, Faults, Point, World
from terrace.errors import Conflict, TerraceError, Transient
from terrace.store import image_removals, images, pool_drift
from terrace.store.idempotency import Key
from terrace.store.images import Image
from terrace.types import ProjectId

SHA256 = hashlib.sha256(IMAGE).hexdigest()
CLONE = "00000000-0000-4000-8000-000000000001-data"

import_test = pytest.mark.parametrize("kind", ["image_import"])


class Sharers:
    """Two nodes with one pool, and images that have no bytes yet."""

    def __init__(self, conn: Connection, hosts: list[Host], project: ProjectId) -> None:
        self.conn = conn
        self.first, self.second = hosts
        self._project = project

    async def new_image(self, name: str) -> Image:
        return await images.insert(self.conn, self._project, name)

    async def import_at(self, host: Host) -> ImageFacts:
        async def chunks() -> AsyncIterator[bytes]:
            yield IMAGE

        return await host.storage.import_image(chunks(), format=None, checksum=None, max_bytes=GIB)

    async def has_bytes(self) -> bool:
        return await self.second.storage.has_image(SHA256)

    async def is_being_removed(self) -> bool:
        return bool(await self.conn.fetchval("select exists (select 1 from image_removals where ended_at is null)"))

    async def locations(self) -> list[str]:
        return [row[0] for row in await self.conn.fetch("select node from image_locations order by node")]


@pytest.fixture
async def sharers(emptied_database: Database, tmp_path: Path) -> AsyncIterator[Sharers]:
    hosts: list[Host] = []
    conn = await emptied_database.connect()
    try:
        for node in ("hv1", "hv2"):
            host = await bare_host(emptied_database, tmp_path, node)
            storage = FakeStorage(tmp_path / "pool", shared=True)
            await storage.connect(await pool_drift.cloud_id(conn))
            hosts.append(replace(host, storage=storage, pool_id=hosts[0].pool_id if hosts else host.pool_id))
        await conn.execute("update nodes set pool_id = $1", hosts[0].pool_id)
        cloud = await seed_cloud(conn)
        yield Sharers(conn, hosts, cloud.who.project_id)
    finally:
        for host in hosts:
            await host.http.aclose()
            await host.placement.close()
            await host.pool.close()
        await conn.close()


def faults_of(host: Host) -> dict[str, str]:
    assert isinstance(host.storage, FakeStorage)
    return host.storage.faults.faults


async def test_bytes_that_an_image_has_stay(sharers: Sharers) -> None:
    image, facts = await sharers.new_image("one"), await sharers.import_at(sharers.second)
    await import_image.keep(sharers.second, image.id, facts)
    assert await image_bytes.remove_unwanted(sharers.first, SHA256) == 0
    assert await sharers.has_bytes()
    assert not await sharers.is_being_removed()
    assert await sharers.locations() == ["hv2"]
    await import_image.remove_kept(sharers.second, image.id)
    assert not await sharers.has_bytes()
    assert await sharers.locations() == []


async def test_nobody_relies_on_bytes_that_another_node_removes(sharers: Sharers) -> None:
    image, facts = await sharers.new_image("one"), await sharers.import_at(sharers.second)
    faults_of(sharers.first)["before-remove_image"] = "transient 1"
    with pytest.raises(Transient):
        await image_bytes.remove_unwanted(sharers.first, SHA256)
    assert await sharers.has_bytes(), "but they may go at any moment"
    for _ in range(2):
        with pytest.raises(Transient) as refused:
            await import_image.keep(sharers.second, image.id, facts)
        assert refused.value.code == "service_unavailable"
    assert await image_bytes.remove_unwanted(sharers.second, SHA256) == 0, "the other node is at it"
    assert await sharers.has_bytes()
    await image_bytes.remove_unwanted(sharers.first, SHA256)
    with pytest.raises(Transient):
        await import_image.keep(sharers.second, image.id, facts)
    found = await images.find_by_id(sharers.conn, image.id)
    assert found is not None and found.sha256 is None
    await import_image.keep(sharers.second, image.id, await sharers.import_at(sharers.second))
    assert await sharers.has_bytes()


@pytest.mark.parametrize("came_back", [False, True])
async def test_bytes_that_were_removed_since_they_were_seen(sharers: Sharers, came_back: bool) -> None:
    await sharers.import_at(sharers.second)
    async with image_bytes.stored(sharers.second, SHA256) as confirm:
        await image_bytes.remove_unwanted(sharers.first, SHA256)
        if came_back:
            await sharers.import_at(sharers.first)
        with pytest.raises(Transient):
            await confirm(sharers.conn)


async def test_a_removal_waits_for_who_is_about_to_want_the_bytes(sharers: Sharers) -> None:
    image, facts = await sharers.new_image("one"), await sharers.import_at(sharers.second)
    async with image_bytes.stored(sharers.second, SHA256) as confirm:
        async with sharers.conn.transaction():
            await images.set_facts(sharers.conn, image.id, node="hv2", **import_image.facts_of(facts))
            await confirm(sharers.conn)
            removal = asyncio.create_task(image_bytes.remove_unwanted(sharers.first, SHA256))

            async def waits() -> bool:
                return bool(
                    await sharers.conn.fetchval("select true from pg_locks where locktype = 'advisory' and not granted")
                )

            await eventually(waits)
        await removal
    assert await sharers.has_bytes()


async def test_what_a_dead_node_has_begun_is_ended_by_another(sharers: Sharers) -> None:
    await sharers.import_at(sharers.first)
    faults_of(sharers.first)["before-remove_image"] = "transient 1"
    with pytest.raises(Transient):
        await image_bytes.remove_unwanted(sharers.first, SHA256)
    pool_id = sharers.first.pool_id
    assert await image_removals.list_unwanted(sharers.conn, pool_id, "hv2") == []
    await sharers.conn.execute("update image_removals set began_at = now() - interval '1 hour'")
    assert await image_removals.list_unwanted(sharers.conn, pool_id, "hv2") == [SHA256]
    await image_bytes.remove_unwanted(sharers.second, SHA256)
    assert not await sharers.has_bytes()
    assert not await sharers.is_being_removed()
    await sharers.conn.execute("update image_removals set ended_at = now() - interval '1 year'")
    await image_removals.delete_ended(sharers.conn)
    assert await sharers.conn.fetchval("select count(*) from image_removals") == 0


async def clone(bench: FakeBench) -> None:
    """A volume that no row speaks of."""
    await bench.node.host.storage.ensure_volume(CLONE, image_sha256=SHA256, image_format="qcow2", size_gib=1)


async def bytes_and_rows(bench: FakeBench) -> tuple[bool, int, int]:
    return (
        await bench.node.host.storage.has_image(SHA256),
        await bench.conn.fetchval("select count(*) from images where name = 'other'"),
        await bench.conn.fetchval("select count(*) from image_locations where sha256 = $1", SHA256),
    )


@import_test
async def test_an_image_with_clones_that_no_row_speaks_of(kind: str, bench: FakeBench) -> None:
    assert (await bench.run()).state == "succeeded"
    await clone(bench)
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            await bench.begin("image_remove")
        assert (refused.value.code, refused.value.extra) == ("image_in_use", {"vms": 0, "volumes": 1})
    await bench.node.host.storage.retire(CLONE)
    with pytest.raises(Conflict):
        await bench.begin("image_remove")
    assert await bytes_and_rows(bench) == (True, 1, 1)
    await bench.node.host.storage.purge_retired(0)
    assert (await bench.do("image_remove")).state == "succeeded"
    assert await bytes_and_rows(bench) == (False, 0, 0)


@import_test
async def test_bytes_go_when_their_last_clone_has_gone(kind: str, bench: FakeBench) -> None:
    assert (await bench.run()).state == "succeeded"
    host = bench.node.host
    await clone(bench)
    faults_of(host)["before-count_children"] = "transient 1"
    op = await bench.do("image_remove")
    assert (op.state, op.result, op.error) == ("succeeded", {"kept_for_volumes": 1}, None)
    assert await bytes_and_rows(bench) == (True, 0, 1)
    await remove_unwanted_images(host)
    assert (await bench.ended("image_remove")).id == op.id, "nothing is begun in vain"
    await host.storage.remove_volume(CLONE)
    await remove_unwanted_images(host)
    last = await bench.ended("image_remove")
    assert (last.id > op.id, last.state, last.result, last.project_id) == (True, "succeeded", {}, None)
    assert await bytes_and_rows(bench) == (False, 0, 0)
    await remove_unwanted_images(host)
    assert (await bench.ended("image_remove")).id == last.id


@pytest.mark.parametrize("kind", ["image_import", "image_capture"])
@pytest.mark.parametrize("step", [1, 0])
async def test_an_image_that_was_given_up_can_be_deleted(kind: str, step: int, bench: FakeBench) -> None:
    name = {"image_import": "other", "image_capture": "copy"}[kind]
    last, undone = {"image_import": ("download", ("claim", "download")), "image_capture": ("clear", ("claim", "copy"))}[
        kind
    ]
    before = await bench.world()
    bench.faults.plan(Point(last, "do", "after"), "permanent")
    bench.faults.plan(Point(undone[step], "undo", "before"), "transient", ALWAYS)
    assert (await bench.run()).state == "stuck"
    world = await bench.world()
    assert [row[:2] for row in world["images"]] == sorted([("tiny", "available"), (name, "importing")])
    bench.faults.planned.clear()
    await delete(bench, name)

    async def is_tidy() -> bool:
        left = await bench.world()
        same = ("images", "locations", "live", "hv1-images", "hv1-image-files")
        return all(left[what] == before[what] for what in same)

    await eventually(is_tidy)
    assert (await bench.newest())[0].state == "stuck"


@import_test
async def test_an_image_at_work_can_not_be_deleted(kind: str, bench: FakeBench) -> None:
    refusals: list[TerraceError] = []

    async def try_it() -> None:
        with pytest.raises(Conflict) as refused:
            await delete(bench, "other")
        refusals.append(refused.value)

    bench.faults.hooks["image_import", Point("download", "do", "after")] = try_it
    assert (await bench.run()).state == "succeeded"
    assert [error.code for error in refusals] == ["image_not_ready"]


@import_test
@pytest.mark.parametrize("point", testing.points(["claim", "download"], "undo"), ids=str)
async def test_what_a_killed_import_has_stored_is_known(
    kind: str, point: Point, bench: FakeBench, worlds: tuple[World, World]
) -> None:
    faults = Faults(kind)
    faults.plan(Point("download", "do", "after"), "permanent")
    faults.plan(point, "kill")
    await testing.check_killed_is_finished(bench, faults, worlds[0], state="failed")


@import_test
async def test_bytes_of_an_upload_that_ended_early_are_removed(kind: str, bench: FakeBench) -> None:
    host = bench.node.host

    async def chunks() -> Any:
        yield IMAGE

    await host.storage.import_image(chunks(), format=None, checksum=None, max_bytes=GIB)
    async with image_bytes.stored(host, SHA256):
        await remove_unwanted_images(host)  # the operation waits for who holds the bytes
        assert await host.storage.has_image(SHA256)
    assert (await bench.ended("image_remove")).state == "succeeded"
    assert await bytes_and_rows(bench) == (False, 0, 0)


async def delete(bench: FakeBench, name: str) -> None:
    """As a client does."""
    key = Key(bench.who.project_id, f"DELETE {name}", "key", bytes(32))
    await image_routes.delete(name, Caller(bench.who, b"", key, "request", 0.0), bench.node)
