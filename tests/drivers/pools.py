"""One pool of each storage driver, with what tests do behind the driver's back: guests, other users, a look inside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import rados
import rbd

from images import GIB
from internal_api.drivers.ceph_connection import CephSettings
from internal_api.drivers.dir_storage import DirStorage
from internal_api.drivers.fake import FakeStorage
from internal_api.drivers.protocols import Storage
from internal_api.drivers.rbd_state import qemu_name
from internal_api.drivers.rbd_storage import RbdStorage
from terrace.stack.ceph_cluster import CephCluster

CLOUD = uuid.UUID("c10d0000-0000-4000-8000-000000000001")
OTHER_CLOUD = uuid.UUID("c10d0000-0000-4000-8000-000000000002")


class Pool(Protocol):
    """A pool under test."""

    storage: Storage
    keeps_bytes: bool  # so that guests can read what is in an image

    def write(self, volume: str, byte: int, offset: int, length: int) -> None: ...
    def reads(self, volume: str, byte: int, offset: int, length: int) -> bool: ...
    def held(self, volume: str) -> contextlib.AbstractContextManager[None]: ...
    def put_foreign(self, name: str) -> None: ...
    def has_foreign(self, name: str) -> bool: ...
    def unfinished(self) -> list[str]: ...


class FakePool:
    """Contents are texts; nobody can hold a volume open."""

    keeps_bytes = False

    def __init__(self, folder: Path) -> None:
        self.storage = FakeStorage(folder)
        self._folder = folder

    def write(self, volume: str, byte: int, offset: int, length: int) -> None:
        written = json.loads(self.storage.read_content(volume) or "{}")
        written[f"{offset}+{length}"] = byte
        self.storage.write_content(volume, json.dumps(written))

    def reads(self, volume: str, byte: int, offset: int, length: int) -> bool:
        written = json.loads(self.storage.read_content(volume) or "{}")
        return bool(written.get(f"{offset}+{length}", 0) == byte)

    @contextlib.contextmanager
    def held(self, volume: str) -> Iterator[None]:
        raise NotImplementedError
        yield

    def put_foreign(self, name: str) -> None:
        facts = {"image": None, "size_gib": 1, "cloud": str(OTHER_CLOUD), "snapshots": {}, "content": ""}
        (self._folder / "volumes" / name).write_text(json.dumps(facts))

    def has_foreign(self, name: str) -> bool:
        return (self._folder / "volumes" / name).exists()

    def unfinished(self) -> list[str]:
        return []


class _QemuPool:
    """Guests are qemu-io."""

    keeps_bytes = True
    format: str

    def path(self, volume: str) -> str:
        raise NotImplementedError

    def write(self, volume: str, byte: int, offset: int, length: int) -> None:
        self._run(volume, f"write -P {byte} {offset} {length}")

    def reads(self, volume: str, byte: int, offset: int, length: int) -> bool:
        return "verification failed" not in self._run(volume, f"read -P {byte} {offset} {length}")

    @contextlib.contextmanager
    def held(self, volume: str) -> Iterator[None]:
        command = ["qemu-io", "-f", self.format, self.path(volume)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
            assert guest.stdin is not None and guest.stdout is not None
            guest.stdin.write(b"write -P 3 0 512\n")
            guest.stdin.flush()
            assert b"wrote" in guest.stdout.readline()
            try:
                yield
            finally:
                guest.communicate()

    def _run(self, volume: str, command: str) -> str:
        words = ["qemu-io", "-f", self.format, "-c", command, self.path(volume)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or "verification failed" in done.stdout, done.stderr
        return done.stdout


class DirPool(_QemuPool):
    """A folder."""

    format = "qcow2"

    def __init__(self, folder: Path) -> None:
        self.storage = DirStorage(folder)
        self._folder = folder

    def path(self, volume: str) -> str:
        return self.storage.volume_source(volume).path

    def put_foreign(self, name: str) -> None:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.path(name), str(GIB)], check=True)

    def has_foreign(self, name: str) -> bool:
        return Path(self.path(name)).exists()

    def unfinished(self) -> list[str]:
        return [path.name for path in self._folder.rglob(".tmp-*")]


class RbdPool(_QemuPool):
    """A pool of a real cluster, empty at first."""

    format = "raw"

    def __init__(self, ceph: CephCluster, folder: Path, *, node: str = "hv1", **options: Any) -> None:
        self.settings = CephSettings(
            **{
                "conf": ceph.conf,
                "pool": ceph.settings.pool,
                "user": "terrace-tests",
                "keyring": folder / f"{node}.keyring",
                "admin_keyring": ceph.admin_keyring,
                **options,
            }
        )
        self.storage = RbdStorage(self.settings, node=node, staging=folder / f"staging-{node}")
        self._admin = rados.Rados(
            conffile=str(ceph.conf), name="client.admin", conf={"keyring": str(ceph.admin_keyring)}
        )
        self._admin.connect()

    def path(self, volume: str) -> str:
        return qemu_name(self.settings, volume)

    def put_foreign(self, name: str) -> None:
        with self.io() as io:
            rbd.RBD().create(io, name, GIB)

    def has_foreign(self, name: str) -> bool:
        return name in self.names()

    def unfinished(self) -> list[str]:
        staged = [path.name for path in self.settings.keyring.parent.glob("staging-*/.tmp-*")]
        return staged + [name for name in self.names() if name.startswith("import-")]

    def names(self) -> list[str]:
        with self.io() as io:
            return sorted(rbd.RBD().list(io))

    def ask(self, prefix: str, **arguments: Any) -> Any:
        words = json.dumps({"prefix": prefix, "format": "json", **arguments})
        status, answer, message = self._admin.mon_command(words, b"", timeout=30)
        assert status == 0, (prefix, message)
        return json.loads(answer) if answer else None

    @contextlib.contextmanager
    def io(self) -> Iterator[Any]:
        with self._admin.open_ioctx(self.settings.pool) as io:
            io.set_osdmap_full_try()
            yield io

    def empty(self, within_s: float = 60.0) -> None:
        """Remove whatever is in the pool, clones before their images; what a dead client watched takes its time."""
        deadline = time.monotonic() + within_s
        with self.io() as io:
            for name in rbd.RBD().list(io):
                rbd.RBD().trash_move(io, name)
            while left := list(rbd.RBD().trash_list(io)):
                for entry in left:
                    with contextlib.suppress(rbd.ImageBusy, rbd.ImageHasSnapshots):
                        self._remove(io, entry["id"])
                assert time.monotonic() < deadline, left

    def _remove(self, io: Any, image_id: str) -> None:
        with rbd.Image(io, image_id=image_id) as image:
            if list(image.list_descendants()):
                return
            for snapshot in list(image.list_snaps()):
                image.remove_snap(snapshot["name"])
        rbd.RBD().trash_remove(io, image_id, force=True)

    def close(self) -> None:
        self._admin.shutdown()
