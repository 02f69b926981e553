"""The Ceph cluster for development and tests: real daemons, killed and started again."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import rados
import rbd
from support.ceph import running

from terrace.stack import ceph_stack, ceph_status
from terrace.stack.ceph_admin import connected
from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.ceph_daemons import Daemons
from terrace.stack.ceph_settings import CephSettings, as_made, net_of
from terrace.stack.errors import SettingsError, StackError
from terrace.stack.process_record import ProcessId
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings


@pytest.fixture(scope="module")
def cluster() -> Iterator[CephCluster]:
    """Not the one of the other tests, because these take it down."""
    with running("127.77.2") as cluster:
        yield cluster


def processes(cluster: CephCluster) -> dict[str, ProcessId]:
    return Daemons(cluster.settings).living()


@contextmanager
def opened(cluster: CephCluster) -> Iterator[rados.Ioctx]:
    client = rados.Rados(conffile=str(cluster.conf), name="client.admin")
    with client, client.open_ioctx(cluster.settings.pool) as pool:
        yield pool


def put(cluster: CephCluster, name: str, content: bytes) -> None:
    with opened(cluster) as pool:
        pool.write_full(name, content)


def get(cluster: CephCluster, name: str) -> bytes:
    with opened(cluster) as pool:
        return bytes(pool.read(name))


def wait_clean(cluster: CephCluster) -> None:
    with connected(cluster.settings) as ceph:
        deadline = time.monotonic() + 60
        while ceph.unclean_groups():
            assert time.monotonic() < deadline, cluster.status()
            time.sleep(0.1)


def wait_well(cluster: CephCluster) -> None:
    """The monitors hear a little later than the mgr that all is well."""
    deadline = time.monotonic() + 30
    while not ((status := cluster.status()).is_well and status.is_clean):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def test_a_second_up_changes_nothing(cluster: CephCluster) -> None:
    before = processes(cluster)
    assert set(before) == {"mon.a", "mon.b", "mon.c", "mgr.x", "osd.0", "osd.1", "osd.2"}
    put(cluster, "kept", b"as it was")
    cluster.up()
    assert processes(cluster) == before
    assert get(cluster, "kept") == b"as it was"


def test_a_disk_can_be_made_in_the_pool(cluster: CephCluster) -> None:
    with opened(cluster) as pool:
        rbd.RBD().create(pool, "disk", 2**30)
        with rbd.Image(pool, "disk") as image:
            image.write(b"x" * 4096, 2**20)
            assert image.read(2**20, 4096) == b"x" * 4096
        rbd.RBD().remove(pool, "disk")


def test_an_osd_dies_and_comes_back_with_what_it_missed(cluster: CephCluster) -> None:
    put(cluster, "before", b"1")
    old = processes(cluster)["osd.0"]
    cluster.kill("osd.0")
    assert not old.is_alive()
    assert cluster.dead_daemons() == ["osd.0"]
    put(cluster, "while", b"2")  # two copies are enough
    assert not cluster.status().is_well
    cluster.start("osd.0")
    assert processes(cluster)["osd.0"] != old
    wait_clean(cluster)
    cluster.kill("osd.1")
    cluster.up()  # repairs it, as `start` does
    wait_well(cluster)
    assert (get(cluster, "before"), get(cluster, "while")) == (b"1", b"2")


def test_a_frozen_daemon_is_woken(cluster: CephCluster) -> None:
    before = processes(cluster)
    cluster.kill("osd.2", signal.SIGSTOP)
    cluster.start("osd.2")
    put(cluster, "awake", b"")
    assert processes(cluster) == before
    cluster.up()


def test_status_names_every_daemon_and_the_dead_one(cluster: CephCluster) -> None:
    status = cluster.status()
    assert all(one.pid is not None for one in status.daemons)
    assert {one.role for one in status.daemons} == {"in quorum", "active", "up, in"}
    cluster.kill("mgr.x")
    lines = ceph_status.text(cluster.settings, cluster.status()).splitlines()
    (line,) = [line for line in lines if line.startswith("mgr.x")]
    assert "DEAD" in line
    cluster.start("mgr.x")
    assert not cluster.dead_daemons()


def test_keys_are_private(cluster: CephCluster) -> None:
    home = cluster.settings.home
    keyrings = [home / "ceph.client.admin.keyring", *home.glob("*/keyring")]
    assert len(keyrings) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in keyrings} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not (home / "seed.keyring").exists()


def test_what_is_not_there_is_said(cluster: CephCluster, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no daemon osd\.7; there are mon\.a"):
        cluster.kill("osd.7")
    with pytest.raises(StackError, match="run scripts/ceph destroy before changing it to bluestore"):
        CephCluster(replace(cluster.settings, store="bluestore")).up()
    with pytest.raises(StackError, match="There is no Ceph cluster in"):
        CephCluster(CephSettings(tmp_path / "none", "127.77.9")).status()


def test_addresses_of_another_are_refused(cluster: CephCluster, tmp_path: Path) -> None:
    other = CephCluster(CephSettings(tmp_path / "ceph", cluster.settings.net))
    with pytest.raises(StackError, match=r"which Ceph's mon\.a needs, is used by another process"):
        other.up()
    assert not other.is_running()


def test_a_failed_start_names_the_daemon_and_takes_back_what_it_started() -> None:
    with running("127.77.3", mons=1, osds=2) as cluster:
        before = processes(cluster)
        cluster.kill("mgr.x")
        cluster.kill("osd.1")
        (cluster.settings.data("osd.1") / "keyring").unlink()
        with pytest.raises(StackError, match=r"Ceph's osd\.1 ended soon after it was started") as caught:
            cluster.up()
        assert "keyring" in caught.value.details
        assert processes(cluster) == {name: before[name] for name in ("mon.a", "osd.0")}


def test_down_leaves_no_process_and_the_next_up_is_new(cluster: CephCluster) -> None:
    put(cluster, "in memory", b"x")
    before = processes(cluster)
    cluster.down()
    assert not processes(cluster)
    assert not any(process.is_alive() for process in before.values())
    assert cluster.has_lost_its_data()
    cluster.up()
    with pytest.raises(rados.ObjectNotFound):
        get(cluster, "in memory")


def test_a_cluster_keeps_the_shape_it_was_made_with(tmp_path: Path) -> None:
    made = CephSettings(tmp_path, net_of(7700), "bluestore", mons=1)
    made.save()
    assert made.net == "127.30.20"
    assert as_made(CephSettings(tmp_path, net_of(7800))) == made


def test_a_stack_keeps_the_storage_it_was_made_with(tmp_path: Path) -> None:
    chosen = StackSettings.load(tmp_path, {"TERRACE_STORAGE": "rbd"})
    assert chosen.storage == "rbd"
    chosen.layout.cluster.mkdir(parents=True)
    chosen.save()
    assert StackSettings.load(tmp_path, {}) == chosen
    with pytest.raises(SettingsError, match=r"TERRACE_STORAGE is rbd in the stack .*scripts/down --purge"):
        StackSettings.load(tmp_path, {"TERRACE_STORAGE": "dir"})
    with pytest.raises(SettingsError, match="fake has fake disks"):
        StackSettings.load(tmp_path / "other", {"TERRACE_STORAGE": "rbd", "TERRACE_PROFILE": "fake"})


def test_a_stack_whose_disks_are_lost_says_so(tmp_path: Path) -> None:
    settings = StackSettings.load(tmp_path, {"TERRACE_STORAGE": "rbd"})
    settings.layout.cluster.mkdir(parents=True)  # the database still speaks of VMs
    with pytest.raises(StackError, match=r"is gone .*run scripts/down --purge"):
        ceph_stack.ensure(settings, Progress.silent())
