"""What only a cluster can do, or do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import rbd
from pools import CLOUD, RbdPool
from support.polling import eventually
from waiting import eventually_true

from images import GIB, MIB, RAW, qcow2, sha256, store, stream
from internal_api.drivers import rbd_images
from internal_api.drivers.ceph_fence import AT_ONCE, Fence
from internal_api.drivers.ceph_keyring import ensure_keyring, read_key
from internal_api.drivers.ceph_monitors import monitors_of_conf
from internal_api.drivers.rbd_marks import RbdPool as Marked
from internal_api.drivers.rbd_storage import RbdStorage
from terrace.errors import Permanent, Transient
from terrace.stack.ceph_cluster import CephCluster

SHORT_S = 1.0


@pytest.fixture
async def pool(ceph: CephCluster, tmp_path: Path) -> AsyncIterator[RbdPool]:
    made = RbdPool(ceph, tmp_path, timeout_s=SHORT_S * 3)
    await made.storage.connect(CLOUD)
    yield made
    await made.storage.close()
    made.empty()
    made.close()


@pytest.fixture
def storage(pool: RbdPool) -> RbdStorage:
    return pool.storage


def name_of(kind: str) -> str:
    return f"{uuid.uuid4()}-{kind}"


async def ensure_clone(storage: RbdStorage, name: str, image: str = "", size_gib: int = 1) -> None:
    await storage.ensure_volume(name, image_sha256=image or sha256(RAW), image_format="raw", size_gib=size_gib)


# -- what a node sets up ----------------------------------------------------------------------------------------------


async def test_makes_pool_and_user_once(ceph: CephCluster, tmp_path: Path) -> None:
    pool = f"made-{uuid.uuid4().hex[:6]}"
    nodes = [RbdPool(ceph, tmp_path, node=node, pool=pool, user=pool, timeout_s=30) for node in ("hv1", "hv2")]
    await asyncio.gather(*(node.storage.connect(CLOUD) for node in nodes))
    first = nodes[0]
    try:
        for node in nodes:
            await node.storage.ping()
            assert stat.S_IMODE(node.settings.keyring.stat().st_mode) == 0o600
        keys = {read_key(node.settings.keyring, pool) for node in nodes}
        assert len(keys) == 1
        (facts,) = [found for found in first.ask("osd pool ls", detail="detail") if found["pool_name"] == pool]
        assert (facts["pg_num"], facts["type"]) == (32, 1) and "rbd" in facts["application_metadata"]
        (user,) = first.ask("auth get", entity=f"client.{pool}")
        assert user["caps"]["osd"] == f"profile rbd pool={pool}"
        with pytest.raises(Permanent):  # libvirt's pool and Ceph's have one name, but other pools are closed
            await RbdPool(ceph, tmp_path, node="hv1", user="nobody", admin_keyring=None).storage.connect(CLOUD)
        shared = [node.storage.hypervisor_pool() for node in nodes]
        assert shared[0] == shared[1] and shared[0].key in keys and shared[0].key not in repr(shared[0])
        assert len(shared[0].hosts) == 3 and all(port == 6789 for _, port in shared[0].hosts)
        source = nodes[0].storage.volume_source("x-root")
        assert (source.kind, source.path, source.format) == ("network", f"{pool}/x-root", "raw")
        assert (source.hosts, source.secret_uuid) == (shared[0].hosts, shared[0].secret_uuid)
    finally:
        for node in nodes:
            await node.storage.close()
            node.close()


async def test_settings_that_never_work_are_told(ceph: CephCluster, tmp_path: Path) -> None:
    for options in (
        {"admin_keyring": None},
        {"admin_keyring": tmp_path / "absent"},
        {"conf": tmp_path / "absent.conf"},
    ):
        with pytest.raises(Permanent):
            await RbdPool(ceph, tmp_path, **options).storage.connect(CLOUD)


def test_a_missing_library_is_named() -> None:
    program = """
import sys
sys.modules["rados"] = None
import internal_api.drivers.rbd_storage
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "python3-rados and python3-rbd" in done.stderr


@pytest.mark.parametrize(
    ("mon_host", "monitors"),
    [
        ("10.0.0.1", [("10.0.0.1", 6789)]),
        ("mon-b:3300, mon-a", [("mon-a", 6789), ("mon-b", 3300)]),
        (
            "[v2:10.0.0.1:3300,v1:10.0.0.1:6789],[v2:10.0.0.2:3300,v1:10.0.0.2:6790]",
            [("10.0.0.1", 6789), ("10.0.0.2", 6790)],
        ),
        ("[v2:[fd00::1]:3300/0,v1:[fd00::1]:6789/0]", [("fd00::1", 6789)]),
        ("v2:10.0.0.1:3300", [("10.0.0.1", 3300)]),
        ("[fd00::1]:6790 [fd00::2]", [("fd00::1", 6790), ("fd00::2", 6789)]),
    ],
)
def test_reads_monitors_of_a_configuration(mon_host: str, monitors: list[tuple[str, int]]) -> None:
    assert list(monitors_of_conf(mon_host)) == monitors


def test_keyrings(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keyring"
    ensure_keyring(path, "me", "a2V5==")
    path.chmod(0o644)
    ensure_keyring(path, "me", "a2V5==")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and read_key(path, "me") == "a2V5=="
    path.write_text('[client.you]\n key=other\n[client.me]\n caps mon = "x"\n\tkey = mine\n')
    assert read_key(path, "me") == "mine"
    with pytest.raises(Permanent):
        read_key(path, "her")


# -- a cluster in trouble ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def frozen(ceph: CephCluster) -> Iterator[None]:
    names = [*ceph.settings.mon_daemons, *ceph.settings.osd_daemons]
    for name in names:
        ceph.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            ceph.kill(name, signal.SIGCONT)


def everything(storage: RbdStorage, name: str) -> list[Callable[[], Awaitable[object]]]:
    """Every method that asks the cluster."""
    return [
        storage.ping,
        storage.usage,
        lambda: store(storage, RAW),
        lambda: storage.has_image(sha256(RAW)),
        lambda: storage.remove_image(sha256(RAW)),
        lambda: ensure_clone(storage, name_of("root")),
        lambda: storage.ensure_empty_volume(name_of("data"), size_gib=1),
        lambda: storage.grow_volume(name, size_gib=2),
        lambda: storage.remove_volume(name),
        lambda: storage.ensure_snapshot(name, "s-1"),
        lambda: storage.remove_snapshot(name, "s-1"),
        lambda: storage.roll_back(name, "s-1"),
        lambda: storage.capture_image(name, "s-1"),
        lambda: storage.ensure_blob(name_of("seed"), b"seed"),
        lambda: storage.remove_blob(name),
        storage.list_volumes,
        lambda: storage.is_ours(name),
        lambda: storage.retire(name),
        lambda: storage.purge_retired(0),
    ]


async def test_an_unreachable_cluster_is_told_in_time_and_used_again(ceph: CephCluster, tmp_path: Path) -> None:
    pool = RbdPool(ceph, tmp_path, timeout_s=SHORT_S)
    storage, name = pool.storage, name_of("data")
    await storage.connect(CLOUD)
    await eventually_true(lambda: _answers(storage.ping()))
    await store(storage, RAW)
    await storage.ensure_empty_volume(name, size_gib=1)

    async def refused(call: Callable[[], Awaitable[object]]) -> float:
        began = time.monotonic()
        with pytest.raises(Transient) as away:
            await call()
        assert away.value.code == "storage_unavailable"
        return time.monotonic() - began

    large = name_of("data")
    await storage.ensure_empty_volume(large, size_gib=1)
    for offset in range(0, 400, 16):
        pool.write(large, 1, offset * MIB, 16 * MIB)
    await storage.ensure_snapshot(large, "s-1")
    late = RbdPool(ceph, tmp_path, node="late", timeout_s=SHORT_S)
    at_work = asyncio.gather(*(refused(lambda: storage.capture_image(large, "s-1")) for _ in range(2)))
    await eventually(lambda: asyncio.to_thread(pool.unfinished))
    with frozen(ceph):
        assert max(await asyncio.wait_for(at_work, 30)) < 30
        took = await asyncio.gather(*(refused(call) for call in everything(storage, name)))
        assert max(took) < 4 * SHORT_S + 3  # two bounds and some, while 19 calls share 16 threads
        took = [await refused(call) for call in everything(storage, name)[:3]]
        await late.storage.connect(CLOUD)
        await refused(late.storage.ping)
        assert storage.volume_source(name).hosts == late.storage.volume_source(name).hosts
        await asyncio.wait_for(late.storage.close(), 10)
    await eventually_true(lambda: _answers(storage.ping()), timeout_s=60)
    await eventually_true(lambda: _answers(late.storage.ping()), timeout_s=60)
    await eventually_true(lambda: _answers(ensure_clone(storage, name_of("root"))), timeout_s=60)

    async def is_clean() -> bool:  # what timed out may still hold a watch, for 30 s
        await storage.purge_retired(0)
        return not pool.unfinished()

    await eventually_true(is_clean, timeout_s=90)
    for node in (pool, late):
        await node.storage.close()
    pool.empty()
    for node in (pool, late):
        node.close()


async def _answers(call: Awaitable[object]) -> bool:
    with contextlib.suppress(Transient):
        await call
        return True
    return False


async def test_goes_on_without_one_osd(ceph: CephCluster, storage: RbdStorage) -> None:
    await store(storage, RAW)
    ceph.kill("osd.1", signal.SIGKILL)
    try:
        for number in range(10):
            await eventually_true(lambda: _answers(ensure_clone(storage, name_of("root"))), timeout_s=30)
            await eventually_true(lambda: _answers(storage.ensure_blob(name_of("seed"), b"x" * 9000)), timeout_s=30)
            assert number or len(await storage.list_volumes()) == 2
    finally:
        ceph.start("osd.1")


async def test_goes_on_without_one_monitor(ceph: CephCluster, pool: RbdPool, storage: RbdStorage) -> None:
    await store(storage, RAW)
    for name in ceph.settings.mon_daemons:
        ceph.kill(name, signal.SIGSTOP)
        try:
            await eventually_true(lambda: _answers(storage.ping()), timeout_s=60)
            await eventually_true(lambda: _answers(ensure_clone(storage, name_of("root"))), timeout_s=60)
        finally:
            ceph.kill(name, signal.SIGCONT)


async def test_a_client_that_was_shut_out_comes_back(pool: RbdPool, storage: RbdStorage) -> None:
    await store(storage, RAW)
    name = name_of("data")
    await storage.ensure_empty_volume(name, size_gib=1)
    with storage._connection.session() as session, rbd.Image(session.pool, name) as image:
        (watcher,) = image.watchers_list()
    pool.ask("osd blocklist", blocklistop="add", addr=watcher["addr"], expire=60.0)
    await eventually_true(lambda: _answers(storage.grow_volume(name, size_gib=2)), timeout_s=30)
    with storage._connection.session() as later:
        assert later is not session and session.retired
    fence = Fence()
    fence.add(session.address)
    assert fence.is_due, session.address
    await ensure_clone(storage, name_of("root"))


# -- a full pool ------------------------------------------------------------------------------------------------------


async def test_a_full_pool_says_so_and_can_be_emptied(pool: RbdPool, storage: RbdStorage, tmp_path: Path) -> None:
    facts = await store(storage, RAW)
    root, data, seed, retired = name_of("root"), name_of("data"), name_of("seed"), name_of("data")
    await ensure_clone(storage, root)
    for name in (data, retired):
        await storage.ensure_empty_volume(name, size_gib=1)
    await storage.ensure_blob(seed, b"seed")
    await storage.ensure_snapshot(data, "s-1")
    pool.write(data, 1, 0, 8 * MIB)
    pool.ask("osd pool set-quota", pool=pool.settings.pool, field="max_bytes", val=str(4 * MIB))
    try:
        await eventually(lambda: _is_full(storage), within_s=60)
        usage = await storage.usage()
        assert usage.capacity_bytes == usage.used_bytes
        for call in (
            lambda: ensure_clone(storage, name_of("root")),
            lambda: storage.ensure_empty_volume(name_of("data"), size_gib=1),
            lambda: storage.ensure_blob(name_of("seed"), bytes(100)),
            lambda: storage.grow_volume(data, size_gib=5),
            lambda: storage.capture_image(data, "s-1"),
            lambda: store(storage, qcow2(tmp_path)),
        ):
            began = time.monotonic()
            with pytest.raises(Transient) as full:
                await call()
            assert full.value.code == "pool_full" and time.monotonic() - began < 10
        assert not pool.unfinished()
        for _ in range(2):  # what is there needs no room: a VM can start
            await ensure_clone(storage, root)
            await storage.ensure_empty_volume(data, size_gib=1)
            await storage.grow_volume(data, size_gib=1)
            await storage.ensure_blob(seed, b"seed")
        await storage.retire(retired)
        assert await storage.purge_retired(0) == 1
        await storage.remove_snapshot(data, "s-1")
        for name in (root, data, seed):
            await storage.remove_volume(name)
        await storage.remove_image(facts.sha256)
        assert not await storage.has_image(facts.sha256)
        assert not {root, data, seed, retired} & set(await storage.list_volumes())
    finally:
        pool.ask("osd pool set-quota", pool=pool.settings.pool, field="max_bytes", val="0")
    await eventually_true(lambda: _answers(store(storage, RAW)), timeout_s=60)


async def _is_full(storage: RbdStorage) -> bool:
    try:
        await storage.ensure_empty_volume(name_of("data"), size_gib=1)
    except Transient as error:
        return error.code == "pool_full"
    return False


# -- several nodes, and interrupted ones ------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qemu-img that notes its arguments; a file ``slow`` makes it hang, and ``held`` wait until that is gone."""
    folder = tmp_path / "tools"
    folder.mkdir()
    script = f"""#!/bin/sh
echo "$@" >>{folder}/calls
if [ "$1" = convert ] && [ -e {folder}/slow ]; then exec sleep 60; fi
while [ "$1" = convert ] && [ -e {folder}/held ]; do sleep 0.1; done
exec /usr/bin/qemu-img "$@"
"""
    (folder / "qemu-img").write_text(script)
    (folder / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
    return folder


async def test_a_pool_that_fills_up_during_an_import_says_so(
    pool: RbdPool, storage: RbdStorage, tools: Path, tmp_path: Path
) -> None:
    """The room was looked at before; only the writes meet the quota."""
    data = name_of("data")
    await storage.ensure_empty_volume(data, size_gib=1)
    (tools / "held").touch()
    importing = asyncio.create_task(store(storage, qcow2(tmp_path)))
    await eventually(lambda: _converts(tools))
    pool.write(data, 1, 0, 8 * MIB)
    pool.ask("osd pool set-quota", pool=pool.settings.pool, field="max_bytes", val=str(4 * MIB))
    try:
        await eventually(lambda: _is_full(storage), within_s=60)
        (tools / "held").unlink()
        with pytest.raises(Transient) as full:
            await asyncio.wait_for(importing, 30)
        assert full.value.code == "pool_full"
        assert not pool.unfinished()
    finally:
        pool.ask("osd pool set-quota", pool=pool.settings.pool, field="max_bytes", val="0")
    await eventually_true(lambda: _answers(store(storage, RAW)), timeout_s=60)


async def test_nodes_import_the_same_image_at_once(ceph: CephCluster, pool: RbdPool, tmp_path: Path) -> None:
    other = RbdPool(ceph, tmp_path, node="hv2")
    await other.storage.connect(CLOUD)
    content = qcow2(tmp_path)
    found = await asyncio.gather(*(store(node.storage, content) for node in (pool, other, pool, other)))
    assert len(set(found)) == 1
    assert pool.names() == [f"image-{sha256(content)}"]
    name = name_of("root")
    await ensure_clone(other.storage, name, sha256(content))
    assert pool.reads(name, 7, 0, MIB)
    await other.storage.close()
    other.close()


async def test_no_key_is_given_to_a_tool(pool: RbdPool, storage: RbdStorage, tools: Path, tmp_path: Path) -> None:
    await store(storage, qcow2(tmp_path))
    calls = (tools / "calls").read_text()
    assert "rbd:" in calls and read_key(pool.settings.keyring, pool.settings.user) not in calls


async def test_an_import_that_is_cancelled_leaves_nothing(pool: RbdPool, storage: RbdStorage, tools: Path) -> None:
    (tools / "slow").touch()
    importing = asyncio.create_task(store(storage, RAW))
    await eventually(lambda: _converts(tools))
    assert len(pool.unfinished()) == 3  # the staged file, its lock, and the image
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert not pool.unfinished()


async def _converts(tools: Path) -> bool:
    return "convert" in (tools / "calls").read_text() if (tools / "calls").exists() else False


async def test_removes_what_its_own_killed_imports_left(
    ceph: CephCluster, pool: RbdPool, tools: Path, tmp_path: Path
) -> None:
    (tools / "slow").touch()
    program = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from internal_api.drivers.ceph_connection import CephSettings
from internal_api.drivers.rbd_storage import RbdStorage
conf, pool, user, keyring, cloud, node, staging = sys.argv[1:]
async def content():
    yield bytes(1024)
async def main():
    storage = RbdStorage(CephSettings(Path(conf), pool, user, Path(keyring)), node=node, staging=Path(staging))
    await storage.connect(UUID(cloud))
    await storage.import_image(content(), format=None, checksum=None, max_bytes=2**30)
asyncio.run(main())
"""
    settings = pool.settings
    command = [sys.executable, "-c", program, str(settings.conf), settings.pool, settings.user, str(settings.keyring)]
    staging = tmp_path / "staging-hv2"
    with subprocess.Popen([*command, str(CLOUD), "hv2", str(staging)]) as importer:
        await eventually(lambda: _converts(tools))
        importer.send_signal(signal.SIGKILL)
        importer.wait()
    await eventually(lambda: _no_sleeper(tools))
    (tools / "slow").unlink()
    assert len(pool.unfinished()) == 3
    await pool.storage.connect(CLOUD)
    await pool.storage.purge_retired(0)
    assert len(pool.unfinished()) == 3, "another node's import was disturbed"
    pool.put_foreign(f"import-hv2-{uuid.uuid4().hex}")
    pool.put_foreign("import-hv2-by-hand")
    namesake = RbdPool(ceph, tmp_path, node="hv2")
    for _ in range(2):
        await namesake.storage.connect(CLOUD)
        assert len(pool.unfinished()) == 2, "of these only the foreign ones stay"
    await namesake.storage.close()
    namesake.close()


async def _no_sleeper(tools: Path) -> bool:
    """Whether the tool that filled the image has ended with its node."""
    found = subprocess.run(["pgrep", "-xf", "sleep 60"], capture_output=True, check=False)
    return found.returncode == 1


@contextlib.asynccontextmanager
async def session_of(pool: RbdPool) -> AsyncIterator[Marked]:
    with pool.storage._connection.session() as session:
        yield Marked(session.pool, session.client_id, str(CLOUD), "hv1")


async def test_what_an_interrupted_run_left_is_made_anew(pool: RbdPool, storage: RbdStorage) -> None:
    facts = await store(storage, RAW)
    async with session_of(pool) as marked:
        clone, empty, blob, name_only, gone = (name_of(kind) for kind in ("root", "data", "seed", "root", "root"))
        for name in (clone, empty, blob, gone):  # made, but neither joined to its image nor marked
            marked.note(name)
            rbd.RBD().create(marked.io, name, MIB)
        marked.note(name_only)
        marked.io.write_full(f"rbd_id.{name_only}", b"\x04\x00\x00\x00abcd")
        await storage.remove_volume(gone)
        for _ in range(2):
            await ensure_clone(storage, clone)
            await ensure_clone(storage, name_only)
            await storage.ensure_empty_volume(empty, size_gib=1)
            await storage.ensure_blob(blob, b"seed")
        assert all(not marked.is_noted(name) for name in (clone, empty, blob, name_only, gone))
    assert list(await storage.list_volumes()) == sorted([clone, name_only, empty, blob])
    for name in (clone, name_only):
        assert pool.reads(name, 17, 0, 512) and await storage.is_ours(name)
    with pytest.raises(Permanent) as refused:
        await storage.remove_image(facts.sha256)
    assert refused.value.extra == {"volumes": 2}


async def test_a_renaming_that_was_interrupted_is_finished(pool: RbdPool, storage: RbdStorage) -> None:
    facts = await store(storage, RAW)
    name, final = f"import-hv1-{uuid.uuid4().hex}", f"image-{facts.sha256}"
    async with session_of(pool) as marked:
        rbd.RBD().rename(marked.io, final, name)
        marked.io.write_full(f"rbd_id.{final}", marked.io.read(f"rbd_id.{name}"))
        assert pool.names() == [name] and rbd_images.has(marked, facts.sha256)
    root = name_of("root")
    await ensure_clone(storage, root)
    assert pool.names() == sorted([final, root])
    await storage.remove_volume(root)
    await storage.remove_image(facts.sha256)
    assert pool.names() == []
    await store(storage, RAW)


async def test_a_removal_that_was_interrupted_holds_up_nothing(pool: RbdPool, storage: RbdStorage) -> None:
    facts = await store(storage, RAW)
    first, second = name_of("root"), name_of("root")
    for name in (first, second):
        await ensure_clone(storage, name)
        async with session_of(pool) as marked:
            with marked.opened(name) as image:
                image_id = image.id()
            marked.trash_to_remove(name, image_id)
    assert list(await storage.list_volumes()) == []
    await ensure_clone(storage, first)
    with pytest.raises(Permanent) as refused:
        await storage.remove_image(facts.sha256)
    assert refused.value.extra == {"volumes": 1}
    await storage.remove_volume(first)
    await storage.remove_image(facts.sha256)
    with pool.io() as io:
        assert not list(rbd.RBD().trash_list(io))


async def test_what_somebody_put_into_the_trash_stays_there(pool: RbdPool, storage: RbdStorage) -> None:
    await store(storage, RAW)
    name = name_of("root")
    await ensure_clone(storage, name)
    with pool.io() as io:
        rbd.RBD().trash_move(io, name, 0)
        assert await storage.purge_retired(0) == 0
        (entry,) = rbd.RBD().trash_list(io)
        rbd.RBD().trash_restore(io, entry["id"], name)
    await storage.remove_volume(name)
    with pool.io() as io:
        assert not list(rbd.RBD().trash_list(io))


async def test_a_name_without_an_image_is_removed_and_made_anew(pool: RbdPool, storage: RbdStorage) -> None:
    name = name_of("data")
    async with session_of(pool) as marked:
        for method in (storage.remove_volume, lambda name: storage.ensure_empty_volume(name, size_gib=1)):
            marked.note(name)
            rbd.RBD().create(marked.io, name, MIB, old_format=False)
            with marked.opened(name) as image:
                header = f"rbd_header.{image.id()}"
            marked.io.remove_object(header)
            await method(name)
            assert not marked.is_noted(name)
            assert await storage.is_ours(name) == (name in pool.names())
    assert pool.names() == [name]


async def test_an_image_without_its_snapshot_is_made_anew(pool: RbdPool, storage: RbdStorage) -> None:
    facts = await store(storage, RAW)
    async with session_of(pool) as marked, asyncio.timeout(60):
        with marked.opened(f"image-{facts.sha256}") as image:
            image.remove_snap("golden")
    assert not await storage.has_image(facts.sha256)
    await store(storage, RAW)
    assert await storage.has_image(facts.sha256) and pool.names() == [f"image-{facts.sha256}"]
    await ensure_clone(storage, name_of("root"))
    await storage.purge_retired(0)
    with pool.io() as io:
        assert not list(rbd.RBD().trash_list(io))


async def test_leftovers_do_not_hold_up_a_ping(pool: RbdPool, storage: RbdStorage) -> None:
    name = f"import-hv1-{uuid.uuid4().hex}"
    async with session_of(pool) as marked:
        rbd_images.begin(marked, name, GIB)
    pool.write(name, 1, 0, MIB)
    storage._clean = False
    with pool.held(name):
        await storage.ping()
        assert storage._cleaning is not None
        await storage._cleaning
        assert not storage._clean and pool.names() == [name]

    async def is_gone() -> bool:
        await storage.ping()
        return not pool.names()

    await eventually_true(is_gone, timeout_s=60)


def test_few_sessions_are_fenced_at_once_and_never_a_whole_host() -> None:
    told: list[str] = []
    fence = Fence()
    for address in ("10.0.0.1:0/0", "v1:10.0.0.1:0", "-", "[v2:10.0.0.1:0/5,v1:10.0.0.1:0/0]"):
        fence.add(address)
    assert not fence.is_due
    for nonce in range(1, 100):
        fence.add(f"10.0.0.1:0/{nonce}")
    assert fence.is_due
    for _ in range(3):
        fence.put_up(lambda _, addr, **__: told.append(addr))
    assert len(set(told)) == len(told) == AT_ONCE and not fence.is_due


async def test_nobody_clones_an_image_that_goes(ceph: CephCluster, pool: RbdPool, tmp_path: Path) -> None:
    """Whoever comes first: a volume never stands on an image that is gone."""
    other = RbdPool(ceph, tmp_path, node="hv2")
    await other.storage.connect(CLOUD)
    facts = await store(pool.storage, RAW)
    for _ in range(8):
        name = name_of("root")
        cloned, _ = await asyncio.gather(
            ensure_clone(pool.storage, name), other.storage.remove_image(facts.sha256), return_exceptions=True
        )
        if cloned is None:
            assert pool.reads(name, 17, 0, 512)
            await pool.storage.remove_volume(name)
        else:
            assert isinstance(cloned, Transient), cloned
            await pool.storage.remove_volume(name)
        await store(pool.storage, RAW)
    await other.storage.close()
    other.close()


async def test_a_clone_takes_no_time(storage: RbdStorage, tmp_path: Path) -> None:
    facts = await store(storage, qcow2(tmp_path, size="500G"))
    took = []
    for _ in range(7):
        began = time.monotonic()
        await ensure_clone(storage, name_of("root"), facts.sha256, size_gib=1000)
        took.append(time.monotonic() - began)
    print(f"clones: {statistics.median(took):.3f} s")
    assert statistics.median(took) < 1.0


async def test_images_of_another_cloud_are_not_used(pool: RbdPool, storage: RbdStorage) -> None:
    await store(storage, RAW)
    await storage.connect(uuid.uuid4())
    assert not await storage.has_image(sha256(RAW))
    name = name_of("root")
    with pytest.raises(Transient):
        await ensure_clone(storage, name)
    assert name not in pool.names()
    with pytest.raises(Permanent):
        await store(storage, RAW)
    await storage.remove_image(sha256(RAW))
    assert pool.names() == [f"image-{sha256(RAW)}"]
    await storage.connect(CLOUD)
    assert await storage.has_image(sha256(RAW))


async def test_large_images_are_copied_in_pieces(pool: RbdPool, storage: RbdStorage) -> None:
    name = name_of("data")
    await storage.ensure_empty_volume(name, size_gib=1)
    for offset in (0, 63, 64, 500, 1023):
        pool.write(name, offset % 200 + 1, offset * MIB + 512, MIB - 1024)
    await storage.ensure_snapshot(name, "s-1")
    facts = await storage.capture_image(name, "s-1")
    with pool.io() as io, rbd.Image(io, name, snapshot="s-1") as image:
        whole = b"".join(image.read(offset, 64 * MIB) for offset in range(0, GIB, 64 * MIB))
    assert facts.sha256 == sha256(whole)
    again = await storage.import_image(stream(whole, MIB), format="raw", checksum=facts.sha256, max_bytes=GIB)
    assert again == facts
