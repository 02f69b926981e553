"""The claim under concurrency: nothing is given twice, nothing is taken without a VM, and nothing stays taken."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.node_world import Cloud, bare_host, give_image, seed_cloud
from support.postgres import Connection, Database

from internal_api.claim import Claimed, claim_vm
from internal_api.host import Host
from terrace.api.vm import VmCreate
from terrace.errors import Refused, TerraceError
from terrace.store import nodes, vms
from terrace.store.idempotency import Key
from terrace.types import PoolId, VmId


@dataclass
class Site:
    """Nodes that claim, and nothing that carries out."""

    database: Database
    folder: Path
    conn: Connection
    cloud: Cloud
    hosts: list[Host] = field(default_factory=list)

    async def add(self, name: str, **more: Any) -> Host:
        host = await bare_host(self.database, self.folder, name, **more)
        self.hosts.append(host)
        if len(self.hosts) == 1:
            assert host.settings.fake_dir is not None
            await give_image(self.conn, self.cloud, name, host.settings.fake_dir)
        return host

    async def claim(self, number: int, name: str | None = None, *, key: str | None = None, **body: Any) -> Claimed:
        """Claim as HAProxy does: at one node, and at the next when that refuses."""
        wanted = VmCreate(**{"name": name or f"vm{number}", "cpu": 1, "ram_mib": 64, "disk_gib": 1, **body})
        digest = hashlib.sha256(wanted.model_dump_json().encode()).digest()
        token = Key(self.cloud.who.project_id, "POST /vms", key or f"key-{number}", digest)
        refusals = []
        for turn in range(len(self.hosts)):
            try:
                host = self.hosts[(number + turn) % len(self.hosts)]
                return await claim_vm(host, self.cloud.who, wanted, token, "request")
            except Refused as refused:
                refusals.append(refused)
        raise refusals[-1]

    async def claim_many(self, count: int, **options: Any) -> tuple[list[Claimed], Counter[str]]:
        """Claims all at once: those that succeeded, and why the others did not."""
        answers = await asyncio.gather(
            *(self.claim(number, **options) for number in range(count)), return_exceptions=True
        )
        refusals = [answer for answer in answers if isinstance(answer, BaseException)]
        assert all(isinstance(refusal, TerraceError) for refusal in refusals), refusals
        claimed = [answer for answer in answers if isinstance(answer, Claimed)]
        return claimed, Counter(refusal.code for refusal in refusals if isinstance(refusal, TerraceError))

    async def taken(self) -> dict[str, Any]:
        """Everything that claims take."""
        return {
            "vms": await self.conn.fetchval("select count(*) from vms"),
            "operations": await self.conn.fetchval("select count(*) from operations"),
            "keys": await self.conn.fetchval("select count(*) from idempotency_keys"),
            "addresses": await self.conn.fetchval("select count(*) from addresses where vm_id is not null"),
            "cpu": await self.conn.fetchval("select sum(cpu_claimed)::int from nodes"),
            "ram": await self.conn.fetchval("select sum(ram_claimed_mib)::int from nodes"),
            "disk": await self.conn.fetchval("select sum(claimed_gib)::int from pools"),
        }


NOTHING = {"vms": 0, "operations": 0, "keys": 0, "addresses": 0, "cpu": 0, "ram": 0, "disk": 0}


@pytest.fixture
async def site(database: Database, tmp_path: Path) -> AsyncIterator[Site]:
    conn = await database.connect()
    made = Site(database, tmp_path, conn, await seed_cloud(conn, subnet="10.1.0.0/24"))
    yield made
    await conn.close()
    for host in made.hosts:
        await host.pool.close()
        await host.http.aclose()


@pytest.mark.parametrize("scarce", ["cpu", "ram", "disk"])
async def test_a_hundred_claims_where_forty_fit(site: Site, scarce: str) -> None:
    room = {"cpu": 100, "ram_mib": 10_000, "disk_gib": 100}
    room |= {"cpu": {"cpu": 20}, "ram": {"ram_mib": 1280}, "disk": {"disk_gib": 20}}[scarce]
    for name in ("hv1", "hv2"):
        await site.add(name, **room)
    claimed, refusals = await site.claim_many(100)
    assert (len(claimed), refusals) == (40, {"refused": 60})
    assert await site.taken() == {
        "vms": 40, "operations": 40, "keys": 40, "addresses": 40, "cpu": 40, "ram": 2560, "disk": 40,
    }  # fmt: skip
    for table, column in (("vms", "ip"), ("vms", "mac"), ("vms", "uuid"), ("addresses", "vm_id")):
        assert await site.conn.fetchval(f"select count(distinct {column}) from {table}") == 40
    assert not await site.conn.fetchval(
        "select count(*) from vms v join addresses a on a.vm_id = v.id where a.ip <> v.ip"
    )


async def test_fifty_claims_of_one_name(site: Site) -> None:
    for name in ("hv1", "hv2"):
        await site.add(name, cpu=100, ram_mib=10_000)
    claimed, refusals = await site.claim_many(50, name="same")
    assert (len(claimed), refusals) == (1, {"name_taken": 49})
    assert await site.taken() == {
        "vms": 1, "operations": 1, "keys": 1, "addresses": 1, "cpu": 1, "ram": 64, "disk": 1,
    }  # fmt: skip


async def test_repeats_of_one_request(site: Site) -> None:
    for name in ("hv1", "hv2"):
        await site.add(name)
    claimed, refusals = await site.claim_many(30, name="same", key="one")
    assert not refusals
    assert len({answer.operation.id for answer in claimed}) == 1
    assert sum(not answer.repeated for answer in claimed) == 1
    assert (await site.taken())["vms"] == 1


async def test_another_body_with_the_same_key(site: Site) -> None:
    await site.add("hv1")
    await site.claim(1, key="one")
    before = await site.taken()
    with pytest.raises(TerraceError) as reused:
        await site.claim(2, key="one")
    assert (reused.value.code, reused.value.status) == ("idempotency_key_reused", 422)
    assert await site.taken() == before


async def test_an_expired_key_is_free_again(site: Site) -> None:
    await site.add("hv1")
    await site.claim(1, key="one")
    await site.conn.execute("update idempotency_keys set expires_at = now() - interval '1 s'")
    assert not (await site.claim(2, key="one")).repeated


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"cpu": 9}, "size_out_of_range"),
        ({"ram_mib": 9000}, "size_out_of_range"),
        ({"disk_gib": 101}, "size_out_of_range"),
        ({"image": "none"}, "unknown_image"),
        ({"image": "4711"}, "unknown_image"),
        ({"network": "none"}, "unknown_network"),
        ({"ssh_keys": ["none"]}, "unknown_ssh_key"),
    ],
)
async def test_what_no_node_can_do_leaves_nothing(site: Site, body: dict[str, Any], code: str) -> None:
    await site.add("hv1")
    with pytest.raises(TerraceError) as refused:
        await site.claim(1, **body)
    assert refused.value.code == code
    assert refused.value.status == 422
    assert await site.taken() == NOTHING


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update nodes set state = 'draining'", "draining"),
        ("update nodes set state = 'maintenance'", "maintenance"),
        ("update nodes set incarnation = 99", "stale"),
        ("update nodes set cpu_claimed = cpu", "cpu"),
        ("update nodes set ram_claimed_mib = ram_mib", "ram"),
        ("update pools set claimed_gib = disk_gib", "disk"),
    ],
)
async def test_a_refusal_has_a_reason_and_leaves_nothing(site: Site, change: str, reason: str) -> None:
    await site.add("hv1")
    await site.conn.execute(change)
    before = await site.taken()
    with pytest.raises(Refused) as refused:
        await site.claim(1)
    assert (refused.value.reason, refused.value.status) == (reason, 425)
    assert await site.taken() == before


async def test_addresses_run_out(site: Site) -> None:
    await site.add("hv1", cpu=100, ram_mib=10_000)
    await site.conn.execute("delete from addresses where ip > inet '10.1.0.24'")
    free = await site.conn.fetchval("select count(*) from addresses")
    claimed, refusals = await site.claim_many(free + 10)
    assert (len(claimed), refusals) == (free, {"no_address": 10})
    assert (await site.taken())["cpu"] == free


async def test_an_address_rests_longest_before_it_is_given_again(site: Site) -> None:
    host = await site.add("hv1")
    await site.conn.execute("delete from addresses where ip > inet '10.1.0.12'")
    total = await site.conn.fetchval("select count(*) from addresses")
    given = []
    for number in range(2 * total):
        vm_id = (await site.claim(number)).vm_id
        given.append(await site.conn.fetchval("select ip from vms where id = $1", vm_id))
        await release(host, vm_id)
    assert given[:total] == given[total:]
    assert len(set(given)) == total


async def test_no_address_on_a_network_of_others(site: Site) -> None:
    await site.add("hv1")
    await site.conn.execute("insert into networks (name, bridge, dhcp) values ('lan', 'br1', 'external')")
    claimed = await site.claim(1, network="lan")
    assert await site.conn.fetchval("select ip from vms where id = $1", claimed.vm_id) is None
    assert (await site.taken())["addresses"] == 0


async def test_counters_return_to_nothing(site: Site) -> None:
    hosts = [await site.add(name) for name in ("hv1", "hv2")]
    claimed, _ = await site.claim_many(16)
    assert len(claimed) == 16
    await asyncio.gather(*(release(hosts[0], answer.vm_id) for answer in claimed))
    taken = await site.taken()
    assert (taken["vms"], taken["addresses"], taken["cpu"], taken["ram"], taken["disk"]) == (0, 0, 0, 0, 0)


async def test_claims_and_releases_at_once(site: Site) -> None:
    hosts = [await site.add(name, cpu=10, ram_mib=640, disk_gib=10) for name in ("hv1", "hv2")]
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        for turn in range(6):
            try:
                claimed = await site.claim(number, f"vm{number}", key=f"{number}-{turn}")
            except Refused:
                await asyncio.sleep(0.005)
                continue
            most = max(most, await site.conn.fetchval("select max(cpu_claimed) from nodes") if number == 0 else 0)
            await release(hosts[number % 2], claimed.vm_id)

    await asyncio.gather(*(one(number) for number in range(40)))
    assert most <= 10
    taken = await site.taken()
    assert (taken["vms"], taken["cpu"], taken["ram"], taken["disk"], taken["addresses"]) == (0, 0, 0, 0, 0)


async def release(host: Host, vm_id: VmId) -> None:
    """Delete a VM's row as the last step of its deletion does."""
    async with host.pool.acquire() as conn, conn.transaction():
        await conn.execute("update operations set state = 'succeeded' where vm_id = $1", vm_id)
        await vms.delete_released(conn, vm_id)


async def test_a_deadlock_is_tried_again(site: Site) -> None:
    """Somebody holds the pool and wants the node: whoever of the two loses, the claim is made."""
    host = await site.add("hv1")
    other = await site.database.connect()
    await site.conn.execute("set deadlock_timeout = '50ms'")
    transaction = other.transaction()
    await transaction.start()
    await other.execute("set local deadlock_timeout = '10s'")  # so that the claim is the one that finds it
    await other.execute("update pools set name = name")
    claim = asyncio.create_task(site.claim(1))
    while not await site.conn.fetchval("select count(*) from pg_locks where not granted"):
        await asyncio.sleep(0.005)
    await other.execute("update nodes set url = url")
    await transaction.commit()
    assert (await claim).vm_id is not None
    await other.close()
    assert (await site.taken())["cpu"] == 1
    assert host.node == "hv1"


async def test_the_worker_is_handed_what_it_would_read(site: Site) -> None:
    host = await site.add("hv1")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me"
    files = [{"path": "/etc/motd", "content": "hello", "mode": "0600"}]
    full = await site.claim(1, ssh_keys=[key], files=files, user_data="#!/bin/sh\n", labels={"a": "b"})
    plain = await site.claim(2)
    for claimed in (full, plain):
        assert host.claimed[claimed.vm_id] == await vms.find(site.conn, claimed.vm_id)
    with_volume = await site.claim(3, volumes=[{"name": "data", "size_gib": 1}])
    assert with_volume.vm_id not in host.claimed
    repeated = await site.claim(2)
    assert repeated.vm is None


async def test_macs_are_local_unicast(site: Site) -> None:
    await site.add("hv1")
    await site.claim(1)
    first = int((await site.conn.fetchval("select mac from vms")).split(":")[0], 16)
    assert first & 0b11 == 0b10


@pytest.mark.parametrize("hundredths", [10, 29, 57, 58, 70, 110, 115, 120, 130, 150, 205, 229, 300, 1601])
async def test_ratios_are_exact(database: Database, hundredths: int) -> None:
    """10 cores at 0.7 are 7, and 100 at 0.29 are 29, whatever floating point makes of it."""
    conn = await database.connect()
    ratio = hundredths / 100
    for cpu in (1, 3, 7, 10, 100, 128):
        name = f"n{cpu}"
        capacity = nodes.Capacity(cpu, ratio, cpu * 1024, ratio, cpu * 100, ratio)
        incarnation = await nodes.register(conn, name, "", capacity)
        pool_id = await nodes.ensure_pool(conn, name, "fake", name, capacity)
        await nodes.use_pool(conn, name, pool_id)
        room, ram, disk = cpu * hundredths // 100, cpu * 1024 * hundredths // 100, cpu * hundredths

        async def claims(
            *, cpu: int, ram_mib: int, disk_gib: int, of: tuple[str, int, PoolId] = (name, incarnation, pool_id)
        ) -> tuple[bool, bool]:
            transaction = conn.transaction()
            await transaction.start()
            try:
                return await nodes.claim(conn, *of, cpu=cpu, ram_mib=ram_mib, disk_gib=disk_gib)
            finally:
                await transaction.rollback()

        assert await claims(cpu=room + 1, ram_mib=ram, disk_gib=disk) == (False, False)
        assert await claims(cpu=room, ram_mib=ram + 1, disk_gib=disk) == (False, False)
        assert await claims(cpu=room, ram_mib=ram, disk_gib=disk + 1) == (True, False)
        assert await claims(cpu=room, ram_mib=ram, disk_gib=disk) == (True, True)
        assert await nodes.why_refused(conn, name, incarnation, room + 1, 0) == "cpu"
        assert await nodes.find_with_room(conn, room, ram, disk, []) == name
        assert await nodes.find_with_room(conn, room, ram, disk + 1, []) is None
        assert await nodes.has_node_for(conn, room, ram, disk)
        await nodes.claim(conn, name, incarnation, pool_id, cpu=room, ram_mib=ram, disk_gib=disk)
        view = await nodes.find_view(conn, name)
        assert view is not None
        assert (view.cpu_overcommit, view.ram_overcommit, view.disk_overcommit) == (ratio, ratio, ratio)
        pulse = await nodes.beat(conn, name, incarnation)
        assert pulse is not None
        assert pulse.free_share == 0
        await conn.execute("truncate pools, nodes cascade")
    await conn.close()
