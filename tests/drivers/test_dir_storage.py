"""What only files can do, or do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pools import CLOUD

from images import GIB, MIB, RAW, qcow2, store, stream
from internal_api.drivers.dir_storage import DirStorage
from terrace.errors import Permanent, Transient


@pytest.fixture
async def pool(tmp_path: Path) -> DirStorage:
    made = DirStorage(tmp_path / "pool")
    await made.connect(CLOUD)
    return made


def _info(path: str) -> Any:
    command = ["qemu-img", "info", "--output=json", "--backing-chain", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


async def test_a_volume_is_an_overlay_of_the_right_size(pool: DirStorage, tmp_path: Path) -> None:
    facts = await store(pool, qcow2(tmp_path))
    await pool.ensure_volume("vm", image_sha256=facts.sha256, image_format="qcow2", size_gib=3)
    top, base = _info(pool.volume_source("vm").path)
    assert top["virtual-size"] == 3 * GIB
    assert top["backing-filename"] == f"../images/{facts.sha256}.qcow2"
    assert base["format"] == "qcow2" and base["virtual-size"] == 8 * MIB


async def test_data_in_a_volume_survive_everything(pool: DirStorage) -> None:
    facts = await store(pool, RAW)
    path = pool.volume_source("vm").path

    async def ensure(size_gib: int) -> None:
        await pool.ensure_volume("vm", image_sha256=facts.sha256, image_format="raw", size_gib=size_gib)

    await asyncio.gather(*(ensure(1) for _ in range(4)))
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 64k 64k", path], check=True)
    await asyncio.gather(*(ensure(1) for _ in range(4)))
    await ensure(2)
    await ensure(1)
    assert _info(path)[0]["virtual-size"] == 2 * GIB
    reading = ["qemu-io", "-f", "qcow2", "-c", "read -P 9 64k 64k", "-c", "read -P 17 0 512", path]
    assert "verification failed" not in subprocess.run(reading, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("size", [200, 65536, 300_000])
async def test_refuses_a_qcow2_that_is_cut_off(pool: DirStorage, tmp_path: Path, size: int) -> None:
    with pytest.raises(Permanent) as refused:
        await store(pool, qcow2(tmp_path)[:size])
    assert refused.value.code == "image_invalid"
    assert not list((tmp_path / "pool" / "images").iterdir())


async def test_refuses_tables_that_point_nowhere(pool: DirStorage, tmp_path: Path) -> None:
    content = bytearray(qcow2(tmp_path))
    content[40:48] = (2**50).to_bytes(8, "big")  # offset of the L1 table
    with pytest.raises(Permanent):
        await store(pool, bytes(content))


async def test_what_a_killed_import_left_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "pool"
    program = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from internal_api.drivers.dir_storage import DirStorage
async def forever():
    yield bytes(8 * 2**20)
    print("writing", flush=True)
    await asyncio.Event().wait()
async def main():
    storage = DirStorage(Path(sys.argv[1]))
    await storage.connect(UUID(int=1))
    await storage.import_image(forever(), format=None, checksum=None, max_bytes=2**30)
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as importer:
        assert importer.stdout is not None
        importer.stdout.readline()
        other = DirStorage(root)
        await other.connect(CLOUD)
        assert len(list((root / "images").iterdir())) == 2, "an import that is alive was disturbed"
        importer.send_signal(signal.SIGKILL)
        importer.wait()
    await other.connect(CLOUD)
    assert list((root / "images").iterdir()) == []


async def test_blobs_hold_exactly_their_bytes(pool: DirStorage) -> None:
    path = Path(pool.blob_source("seed").path)
    await pool.ensure_blob("seed", b"one")
    inode = path.stat().st_ino
    await pool.ensure_blob("seed", b"one")
    assert path.stat().st_ino == inode
    await pool.ensure_blob("seed", b"two")
    assert path.read_bytes() == b"two"


async def test_nobody_clones_an_image_that_goes(pool: DirStorage) -> None:
    """Whoever comes first: a volume never stands on an image that is gone."""
    facts = await store(pool, RAW)
    for number in range(10):
        clone = pool.ensure_volume(f"vm-{number}", image_sha256=facts.sha256, image_format="raw", size_gib=1)
        cloned, removed = await asyncio.gather(clone, pool.remove_image(facts.sha256), return_exceptions=True)
        assert (cloned is None) != (removed is None)
        if cloned is None:
            assert await pool.has_image(facts.sha256)
            await pool.remove_volume(f"vm-{number}")
        else:
            await store(pool, RAW)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_pool_says_so_and_keeps_nothing(small_disk: Path) -> None:
    storage = DirStorage(small_disk / "pool")
    await storage.connect(CLOUD)
    facts = await store(storage, RAW)

    async def filler() -> AsyncIterator[bytes]:
        async for chunk in stream(bytes(8 * MIB)):
            yield chunk

    with pytest.raises(Transient) as full:
        await storage.import_image(filler(), format=None, checksum=None, max_bytes=GIB)
    assert full.value.code == "pool_full"
    (small_disk / "filling").write_bytes(bytes((await _free(small_disk)) - 4096))
    with pytest.raises(Transient) as full:
        await storage.ensure_volume("vm", image_sha256=facts.sha256, image_format="raw", size_gib=1)
    assert full.value.code == "pool_full"
    with pytest.raises(Transient) as full:
        await storage.ensure_blob("seed", bytes(65536))
    assert full.value.code == "pool_full"
    assert list(await storage.list_volumes()) == []
    (small_disk / "filling").unlink()
    await storage.ensure_volume("vm", image_sha256=facts.sha256, image_format="raw", size_gib=1)


async def _free(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


async def test_what_an_older_release_made_is_adopted_once(tmp_path: Path) -> None:
    storage = DirStorage(tmp_path / "pool")
    await storage.connect(CLOUD)
    names = [f"{uuid.uuid4()}-root", f"{uuid.uuid4()}-seed"]
    await storage.ensure_empty_volume(names[0], size_gib=1)
    await storage.ensure_blob(names[1], b"seed")
    (tmp_path / "pool" / "volumes" / "operators.qcow2").write_bytes(b"")
    shutil.rmtree(tmp_path / "pool" / "marks")
    interrupted = tmp_path / "pool" / "marks.new"
    interrupted.mkdir()
    (interrupted / names[0]).write_text(str(CLOUD))
    older = DirStorage(tmp_path / "pool")
    await older.connect(CLOUD)
    assert [await older.is_ours(name) for name in names] == [True, True]
    assert not await older.is_ours("operators")
    assert not interrupted.exists()
    late = f"{uuid.uuid4()}-root"
    shutil.copy(older.volume_source(names[0]).path, older.volume_source(late).path)
    await older.connect(CLOUD)
    assert not await older.is_ours(late)


async def test_a_snapshot_larger_than_its_volume_is_not_captured_short(pool: DirStorage) -> None:
    name = f"{uuid.uuid4()}-data"
    await pool.ensure_empty_volume(name, size_gib=1)
    await pool.ensure_snapshot(name, "small")
    await pool.grow_volume(name, size_gib=2)
    await pool.ensure_snapshot(name, "large")
    await pool.roll_back(name, "small")
    with pytest.raises(Permanent, match="larger"):
        await pool.capture_image(name, "large")
    await pool.grow_volume(name, size_gib=2)
    assert (await pool.capture_image(name, "large")).virtual_bytes == 2 * GIB
    assert (await pool.capture_image(name, "small")).virtual_bytes == GIB
