"""What every storage driver does: the file-backed fake and the folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from images import GIB, MIB, RAW, qcow2, sha256, store, stream
from internal_api.drivers.protocols import Storage
from terrace.errors import Permanent, Transient


async def test_stores_an_image_under_its_checksum(storage: Storage, tmp_path: Path) -> None:
    content = qcow2(tmp_path)
    facts = await store(storage, content, format="qcow2", checksum=f"sha256:{sha256(content).upper()}")
    assert (facts.format, facts.size_bytes, facts.virtual_bytes) == ("qcow2", len(content), 8 * MIB)
    assert facts.sha256 == sha256(content)
    assert await storage.has_image(facts.sha256)
    path = storage.image_path(facts.sha256)
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


async def test_an_upload_that_is_cut_off_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
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


async def test_volumes_come_and_go(storage: Storage) -> None:
    facts = await store(storage, RAW)
    for size_gib in (1, 1, 2, 1):
        await storage.ensure_volume("vm-1", image_sha256=facts.sha256, image_format="raw", size_gib=size_gib)
    await storage.ensure_blob("vm-1-seed.iso", b"seed")
    assert list(await storage.list_volumes()) == ["vm-1", "vm-1-seed.iso"]
    assert storage.volume_source("vm-1").format == "qcow2"
    assert not storage.volume_source("vm-1").readonly
    assert storage.blob_source("vm-1-seed.iso").readonly
    for _ in range(2):
        await storage.remove_volume("vm-1")
        await storage.remove_blob("vm-1-seed.iso")
    assert list(await storage.list_volumes()) == []


async def test_a_volume_needs_its_image_and_its_size(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(Transient):
        await storage.ensure_volume("vm-1", image_sha256="0" * 64, image_format="qcow2", size_gib=1)
    facts = await store(storage, qcow2(tmp_path, size="3G"))
    with pytest.raises(Permanent) as refused:
        await storage.ensure_volume("vm-1", image_sha256=facts.sha256, image_format="qcow2", size_gib=2)
    assert refused.value.code == "size_out_of_range"
    assert list(await storage.list_volumes()) == []
    assert facts.virtual_bytes == 3 * GIB


async def test_a_volume_of_another_image_is_not_taken_over(storage: Storage) -> None:
    first, second = await store(storage, RAW), await store(storage, bytes(MIB))
    await storage.ensure_volume("vm-1", image_sha256=first.sha256, image_format="raw", size_gib=1)
    with pytest.raises(Permanent):
        await storage.ensure_volume("vm-1", image_sha256=second.sha256, image_format="raw", size_gib=1)


async def test_an_image_stays_while_volumes_need_it(storage: Storage) -> None:
    facts = await store(storage, RAW)
    await storage.ensure_volume("vm-1", image_sha256=facts.sha256, image_format="raw", size_gib=1)
    with pytest.raises(Permanent) as refused:
        await storage.remove_image(facts.sha256)
    assert refused.value.code == "image_in_use"
    assert await storage.has_image(facts.sha256)
    await storage.remove_volume("vm-1")
    for _ in range(2):
        await storage.remove_image(facts.sha256)
    assert not await storage.has_image(facts.sha256)


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
