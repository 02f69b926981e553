"""What every storage driver does: the file-backed fake, the folder, and a pool of a real Ceph cluster."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pools import CLOUD, OTHER_CLOUD, DirPool, FakePool, Pool, RbdPool

from images import GIB, MIB, RAW, qcow2, sha256, store, stream
from internal_api.drivers.protocols import Storage
from terrace.errors import Permanent, Transient


@pytest.fixture(params=["fake", "dir", "rbd"])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    made: Pool
    match request.param:
        case "fake":
            made = FakePool(tmp_path)
        case "dir":
            made = DirPool(tmp_path)
        case _:
            made = RbdPool(request.getfixturevalue("ceph"), tmp_path)
    await made.storage.connect(CLOUD)
    yield made
    await made.storage.close()
    if isinstance(made, RbdPool):
        made.empty()
        made.close()


@pytest.fixture
def storage(pool: Pool) -> Storage:
    return pool.storage


@pytest.fixture
def root() -> str:
    return f"{uuid.uuid4()}-root"


@pytest.fixture
def data() -> str:
    return f"{uuid.uuid4()}-data"


@pytest.fixture
def seed() -> str:
    return f"{uuid.uuid4()}-seed"


async def test_stores_an_image_under_its_checksum(storage: Storage, tmp_path: Path) -> None:
    content = qcow2(tmp_path)
    facts = await store(storage, content, format="qcow2", checksum=f"sha256:{sha256(content).upper()}")
    assert (facts.format, facts.size_bytes, facts.virtual_bytes) == ("qcow2", len(content), 8 * MIB)
    assert facts.sha256 == sha256(content)
    assert await storage.has_image(facts.sha256)
    path = storage.image_path(facts.sha256)
    if storage.capabilities.shared:
        assert path is None
    else:
        assert path is not None and path.read_bytes() == content
    assert await store(storage, content) == facts


async def test_tells_raw_from_qcow2(storage: Storage) -> None:
    facts = await store(storage, RAW)
    assert (facts.format, facts.virtual_bytes) == ("raw", MIB)
    assert not await storage.has_image("0" * 64)
    assert storage.image_path("0" * 64) is None


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"", None),
        (b"", "raw"),
        (b"x" * 511, None),
        (b"<html>404</html>", None),
        (RAW, "qcow2"),
        (RAW, "vmdk"),
        (b"QFI\xfb" + bytes(1020), "raw"),
        (b"QFI\xfb", None),
        (b"QFI\xfb" + bytes(1020), None),
        (b"\x1f\x8b" + bytes(510), None),
        (b"KDMV" + bytes(508), "raw"),
        (b"vhdxfile" + bytes(504), None),
    ],
)
async def test_refuses_what_is_no_image(storage: Storage, content: bytes, declared: str | None) -> None:
    with pytest.raises(Permanent) as refused:
        await store(storage, content, format=declared)
    assert refused.value.code == "image_invalid"
    assert not await storage.has_image(sha256(content))


@pytest.mark.parametrize(
    "options",
    [
        ("-F", "raw", "-b", "/etc/passwd", "-u"),
        ("-o", "data_file=other.raw"),
    ],
    ids=["backing file", "data file"],
)
async def test_refuses_images_that_need_something_else(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = qcow2(tmp_path, *options, size="1M")
    with pytest.raises(Permanent) as refused:
        await store(storage, content)
    assert refused.value.code == "image_invalid"


@pytest.mark.parametrize(
    ("offset", "value"),
    [(24, 2**62), (24, 0), (32, 2 << 32 | 1), (72, 2)],
    ids=["absurd size", "no size", "encrypted", "marked corrupt"],
)
async def test_refuses_what_its_header_says(storage: Storage, tmp_path: Path, offset: int, value: int) -> None:
    content = bytearray(qcow2(tmp_path))
    content[offset : offset + 8] = value.to_bytes(8, "big")
    with pytest.raises(Permanent) as refused:
        await store(storage, bytes(content))
    assert refused.value.code == "image_invalid"


async def test_refuses_another_checksum_and_too_many_bytes(storage: Storage) -> None:
    with pytest.raises(Permanent) as refused:
        await store(storage, RAW, checksum="sha256:" + "0" * 64)
    assert refused.value.code == "checksum_mismatch"
    with pytest.raises(Permanent) as refused:
        await storage.import_image(stream(RAW), format=None, checksum=None, max_bytes=MIB - 1)
    assert refused.value.code == "image_too_large"
    assert not await storage.has_image(sha256(RAW))


async def test_an_upload_that_is_cut_off_leaves_nothing(pool: Pool, storage: Storage, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield RAW[:1000]
        raise ConnectionResetError

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ConnectionResetError, Transient)):
        await storage.import_image(broken(), format=None, checksum=None, max_bytes=MIB)

    async def endless() -> AsyncIterator[bytes]:
        yield RAW[:1000]
        await asyncio.Event().wait()

    importing = asyncio.create_task(storage.import_image(endless(), format=None, checksum=None, max_bytes=MIB))
    await asyncio.sleep(0.05)
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert sorted(tmp_path.rglob("*")) == before
    assert not pool.unfinished()


async def test_volumes_come_and_go(storage: Storage, root: str, seed: str) -> None:
    facts = await store(storage, RAW)
    for size_gib in (1, 1, 2, 1):
        await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="raw", size_gib=size_gib)
    for content in (b"seed", b"seed", b"another seed"):
        await storage.ensure_blob(seed, content)
    assert list(await storage.list_volumes()) == sorted([root, seed])
    assert not storage.volume_source(root).readonly
    assert storage.blob_source(seed).readonly
    for _ in range(2):
        await storage.remove_volume(root)
        await storage.remove_blob(seed)
    assert list(await storage.list_volumes()) == []


async def test_a_volume_needs_its_image_and_its_size(storage: Storage, tmp_path: Path, root: str) -> None:
    with pytest.raises(Transient):
        await storage.ensure_volume(root, image_sha256="0" * 64, image_format="qcow2", size_gib=1)
    facts = await store(storage, qcow2(tmp_path, size="3G"))
    for _ in range(2):
        with pytest.raises(Permanent) as refused:
            await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="qcow2", size_gib=2)
        assert refused.value.code == "size_out_of_range"
    assert list(await storage.list_volumes()) == []
    assert facts.virtual_bytes == 3 * GIB
    await storage.remove_volume(root)


async def test_a_volume_of_another_image_is_not_taken_over(storage: Storage, root: str) -> None:
    first, second = await store(storage, RAW), await store(storage, bytes(MIB))
    await storage.ensure_volume(root, image_sha256=first.sha256, image_format="raw", size_gib=1)
    with pytest.raises(Permanent):
        await storage.ensure_volume(root, image_sha256=second.sha256, image_format="raw", size_gib=1)


async def test_an_image_stays_while_volumes_need_it(storage: Storage, root: str, data: str) -> None:
    facts = await store(storage, RAW)
    for name in (root, data):
        await storage.ensure_volume(name, image_sha256=facts.sha256, image_format="raw", size_gib=1)
    for left in (2, 1):
        assert await storage.count_children(facts.sha256) == left
        with pytest.raises(Permanent) as refused:
            await storage.remove_image(facts.sha256)
        assert refused.value.code == "image_in_use"
        assert refused.value.extra == {"volumes": left} and str(left) in refused.value.detail
        assert await storage.has_image(facts.sha256)
        await storage.remove_volume(root if left == 2 else data)
    for _ in range(2):
        assert await storage.count_children(facts.sha256) == 0
        await storage.remove_image(facts.sha256)
    assert not await storage.has_image(facts.sha256)
    assert await store(storage, RAW) == facts
    await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="raw", size_gib=1)


async def test_a_clone_is_its_image_grown(pool: Pool, storage: Storage, tmp_path: Path, root: str) -> None:
    facts = await store(storage, qcow2(tmp_path))
    for size_gib in (1, 2, 1):
        await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="qcow2", size_gib=size_gib)
    if pool.keeps_bytes:
        assert pool.reads(root, 7, 0, MIB)
    pool.write(root, 9, 2 * GIB - MIB, MIB)
    await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="qcow2", size_gib=1)
    assert pool.reads(root, 9, 2 * GIB - MIB, MIB)
    other = f"{uuid.uuid4()}-root"
    await storage.ensure_volume(other, image_sha256=facts.sha256, image_format="qcow2", size_gib=2)
    assert pool.reads(other, 0, 2 * GIB - MIB, MIB)


async def test_an_empty_volume_reads_as_zeros_and_keeps_what_is_written(
    pool: Pool, storage: Storage, data: str
) -> None:
    for _ in range(2):
        await storage.ensure_empty_volume(data, size_gib=1)
    assert pool.reads(data, 0, 0, MIB) and pool.reads(data, 0, GIB - MIB, MIB)
    pool.write(data, 5, 0, MIB)
    for size_gib in (3, 3, 2):
        await storage.grow_volume(data, size_gib=size_gib)
        await storage.ensure_empty_volume(data, size_gib=1)
    assert pool.reads(data, 5, 0, MIB)
    pool.write(data, 6, 3 * GIB - MIB, MIB)
    assert pool.reads(data, 6, 3 * GIB - MIB, MIB)
    with pytest.raises(Permanent) as refused:
        await storage.grow_volume(f"{uuid.uuid4()}-data", size_gib=1)
    assert refused.value.code == "volume_missing"


async def test_a_snapshot_brings_content_and_size_back(pool: Pool, storage: Storage, data: str) -> None:
    first, second = f"s-{uuid.uuid4()}", f"s-{uuid.uuid4()}"
    await storage.ensure_empty_volume(data, size_gib=1)
    pool.write(data, 1, 0, MIB)
    assert not await storage.has_snapshot(data, first)
    for _ in range(2):
        await storage.ensure_snapshot(data, first)
    assert await storage.has_snapshot(data, first)
    assert not await storage.has_snapshot(data, second)
    assert not await storage.has_snapshot(f"{uuid.uuid4()}-data", first)
    await storage.check_room()
    await storage.grow_volume(data, size_gib=2)
    pool.write(data, 2, 0, MIB)
    pool.write(data, 2, 2 * GIB - MIB, MIB)
    await storage.ensure_snapshot(data, first)
    await storage.ensure_snapshot(data, second)
    for _ in range(2):
        await storage.roll_back(data, first)
        assert pool.reads(data, 1, 0, MIB)
    await storage.roll_back(data, second)
    assert pool.reads(data, 2, 0, MIB) and pool.reads(data, 2, 2 * GIB - MIB, MIB)
    for _ in range(2):
        await storage.remove_snapshot(data, second)
    assert pool.reads(data, 2, 0, MIB)
    with pytest.raises(Permanent) as refused:
        await storage.roll_back(data, second)
    assert refused.value.code == "snapshot_missing"
    await storage.roll_back(data, first)
    for _ in range(2):
        await storage.remove_volume(data)
    await storage.remove_snapshot(data, first)
    with pytest.raises(Permanent) as refused:
        await storage.ensure_snapshot(data, first)
    assert refused.value.code == "volume_missing"


async def test_rolling_back_restores_the_size(pool: Pool, storage: Storage, data: str) -> None:
    await storage.ensure_empty_volume(data, size_gib=1)
    await storage.ensure_snapshot(data, "s-1")
    await storage.grow_volume(data, size_gib=2)
    await storage.roll_back(data, "s-1")
    await storage.ensure_snapshot(data, "s-2")
    facts = await storage.capture_image(data, "s-2")
    assert facts.virtual_bytes == GIB


async def test_a_captured_image_depends_on_nothing(pool: Pool, storage: Storage, root: str, tmp_path: Path) -> None:
    base = await store(storage, qcow2(tmp_path, size="900M"))
    await storage.ensure_volume(root, image_sha256=base.sha256, image_format="qcow2", size_gib=1)
    pool.write(root, 4, 500 * MIB, MIB)
    await storage.ensure_snapshot(root, "s-1")
    pool.write(root, 8, 500 * MIB, MIB)
    await storage.grow_volume(root, size_gib=2)
    facts = await storage.capture_image(root, "s-1")
    assert facts.virtual_bytes == GIB and await storage.has_image(facts.sha256)
    if storage.capabilities.shared:
        assert (facts.format, facts.size_bytes) == ("raw", GIB)
        assert facts == await storage.capture_image(root, "s-1")
    assert not pool.unfinished()
    await storage.remove_volume(root)
    await storage.remove_image(base.sha256)
    await storage.ensure_volume(root, image_sha256=facts.sha256, image_format=facts.format, size_gib=1)
    assert pool.reads(root, 4, 500 * MIB, MIB)
    if pool.keeps_bytes:
        assert pool.reads(root, 7, 0, MIB) and pool.reads(root, 0, MIB, MIB)
    for missing, code in ((root, "snapshot_missing"), (f"{uuid.uuid4()}-root", "volume_missing")):
        with pytest.raises(Permanent) as refused:
            await storage.capture_image(missing, "s-1")
        assert refused.value.code == code


async def test_what_others_have_is_not_touched(pool: Pool, storage: Storage, root: str, data: str) -> None:
    facts = await store(storage, RAW)
    for name in (root, data, "operators-disk"):
        pool.put_foreign(name)
    with pytest.raises(Permanent):
        await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="raw", size_gib=1)
    with pytest.raises(Permanent):
        await storage.ensure_empty_volume(data, size_gib=1)
    for name in (root, data, "operators-disk"):
        assert not await storage.is_ours(name)
        with pytest.raises(Permanent):
            await storage.retire(name)
        for missing in (storage.grow_volume(name, size_gib=5), storage.ensure_snapshot(name, "s-1")):
            with pytest.raises(Permanent) as refused:
                await missing
            assert refused.value.code == "volume_missing"
        await storage.remove_snapshot(name, "s-1")
        await storage.remove_volume(name)
        await storage.remove_blob(name)
        assert pool.has_foreign(name)
    assert await storage.purge_retired(0) == 0
    assert list(await storage.list_volumes()) == sorted([root, data])


async def test_only_the_cloud_that_made_it_calls_it_its_own(pool: Pool, storage: Storage, root: str, seed: str) -> None:
    assert not await storage.is_ours(root)
    await storage.ensure_empty_volume(root, size_gib=1)
    await storage.ensure_blob(seed, b"seed")
    assert await storage.is_ours(root) and await storage.is_ours(seed)
    await storage.connect(OTHER_CLOUD)
    assert not await storage.is_ours(root) and not await storage.is_ours(seed)
    with pytest.raises(Permanent):
        await storage.ensure_blob(seed, b"other")
    with pytest.raises(Permanent):
        await storage.ensure_empty_volume(root, size_gib=1)
    await storage.connect(CLOUD)
    await storage.remove_volume(root)
    await storage.remove_blob(seed)
    assert not await storage.is_ours(root) and not await storage.is_ours(seed)


async def test_what_is_retired_goes_for_good_in_time(pool: Pool, storage: Storage, root: str, seed: str) -> None:
    facts = await store(storage, RAW)
    await storage.ensure_volume(root, image_sha256=facts.sha256, image_format="raw", size_gib=1)
    await storage.ensure_snapshot(root, "s-1")
    await storage.ensure_blob(seed, b"seed")
    for _ in range(2):
        await storage.retire(root)
        await storage.retire(seed)
    assert list(await storage.list_volumes()) == []
    assert not await storage.is_ours(root)
    assert await storage.purge_retired(3600) == 0
    assert await storage.count_children(facts.sha256) == 1
    with pytest.raises(Permanent) as refused:
        await storage.remove_image(facts.sha256)
    assert refused.value.code == "image_in_use"
    assert await storage.purge_retired(0) == 2
    assert await storage.purge_retired(0) == 0
    await storage.remove_image(facts.sha256)


@pytest.mark.parametrize("pool", ["dir", "rbd"], indirect=True)  # nobody opens the fake's volumes
async def test_an_open_volume_stays(pool: Pool, storage: Storage, data: str) -> None:
    await storage.ensure_empty_volume(data, size_gib=1)
    await storage.ensure_snapshot(data, "s-1")
    with pool.held(data):
        for refused in (
            storage.remove_volume(data),
            storage.retire(data),
            storage.roll_back(data, "s-1"),
        ):
            with pytest.raises(Transient) as busy:
                await refused
            assert busy.value.code == "volume_in_use"
        if storage.capabilities.live_snapshots:
            await storage.ensure_snapshot(data, "s-2")
            await storage.remove_snapshot(data, "s-2")
        captured = await storage.capture_image(data, "s-1")
    assert await storage.has_image(captured.sha256)
    await storage.roll_back(data, "s-1")
    assert pool.reads(data, 0, 0, 512)
    await storage.remove_volume(data)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "..", "-x", "a\0b", "x" * 200, "a b"])
async def test_names_stay_in_the_pool(storage: Storage, name: str) -> None:
    with pytest.raises(Permanent):
        await storage.ensure_blob(name, b"")
    with pytest.raises(Permanent):
        await storage.remove_volume(name)
    with pytest.raises(Permanent):
        storage.volume_source(name)
    with pytest.raises(Permanent):
        storage.image_path(name)


async def test_tells_its_size(storage: Storage) -> None:
    await storage.ping()
    usage = await storage.usage()
    assert 0 <= usage.used_bytes <= usage.capacity_bytes
