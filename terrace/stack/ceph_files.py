"""The files a Ceph cluster begins with: its configuration, its keys, its monitors' map, empty stores."""

from __future__ import annotations

import base64
import secrets
import shutil
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from terrace.stack import commands, files
from terrace.stack.ceph_settings import CephSettings
from terrace.stack.errors import StackError

# Always-on modules can't be named here; a module that Ceph doesn't have may.
OPTIONAL_MODULES = (
    "alerts influx insights iostat localpool mirroring nfs osd_perf_query osd_support prometheus restful "
    "selftest snap_schedule stats telegraf test_orchestrator zabbix diskprediction_local dashboard"
)

# Small: the whole cluster shall fit beside guests and databases. A dead OSD is noticed after 6 s and not 20.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = {mon_host}
mon_initial_members = {mon_names}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
run_dir = {home}/run
admin_socket =
crash_dir = {home}/crash
osd_pool_default_size = {copies}
osd_pool_default_min_size = {min_copies}
osd_pool_default_pg_num = 32
osd_pool_default_pg_autoscale_mode = off
osd_heartbeat_grace = 6
osd_heartbeat_interval = 2
mgr_stats_period = 1

[client]
log_file =

[client.admin]
keyring = {home}/ceph.client.admin.keyring

[mon]
mon_data = {home}/mon.$id
keyring = {home}/mon.$id/keyring
log_file = {home}/log/$name.log
mon_cluster_log_file = {home}/log/cluster.log
mon_data_avail_warn = 5
mon_data_avail_crit = 2
mon_allow_pool_delete = true
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_election_timeout = 1
mon_tick_interval = 1
paxos_propose_interval = 0.1
mon_memory_target = 536870912
mon_memory_autotune = false
rocksdb_cache_size = 33554432

[mgr]
mgr_data = {home}/mgr.$id
keyring = {home}/mgr.$id/keyring
log_file = {home}/log/$name.log
mgr_initial_modules =
mgr_disabled_modules = {modules}

[osd]
osd_data = {home}/osd.$id
keyring = {home}/osd.$id/keyring
log_file = {home}/log/$name.log
osd_objectstore = {store}
memstore_device_bytes = {osd_bytes}
bluestore_block_size = {osd_bytes}
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_memory_target = 939524096
osd_class_update_on_start = false
"""
DAEMON = """
[{name}]
public_addr = {address}
"""
# each OSD counts as a host of its own, so that copies lie apart
OSD = """\
cluster_addr = {address}
crush_location = root=default host=node{number}
"""

# what each kind may do (ceph-auth's capabilities)
CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mds": "allow *", "mgr": "allow *"},
    "mgr": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "osd": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
}


def make(settings: CephSettings) -> None:
    """Makes everything anew in the home directory, whatever an interrupted making left there."""
    for name in (*settings.daemons, "run", "crash"):
        shutil.rmtree(settings.data(name), ignore_errors=True)
    for directory in (settings.home, settings.log, settings.home / "run", settings.home / "crash"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.save()
    fsid = str(uuid.uuid4())
    files.write(settings.conf, _configuration(settings, fsid))
    _make_keys(settings)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda make_one: make_one(), _makers(settings, fsid)))
    _seed(settings).unlink()
    settings.made_mark.touch()


def osd_uuid(settings: CephSettings, number: int) -> str:
    """The identity of an OSD, known to its store and to the monitors."""
    return (settings.data(f"osd.{number}") / "fsid").read_text().strip()


def _configuration(settings: CephSettings, fsid: str) -> str:
    text = CONFIGURATION.format(
        fsid=fsid,
        home=settings.home,
        mon_host=",".join(map(settings.mon_addresses, settings.mon_daemons)),
        mon_names=",".join(name.removeprefix("mon.") for name in settings.mon_daemons),
        copies=settings.copies,
        min_copies=max(1, settings.copies - 1),
        modules=OPTIONAL_MODULES,
        store=settings.store,
        osd_bytes=settings.osd_gib * 1024**3,
    )
    for name in settings.daemons:
        text += DAEMON.format(name=name, address=settings.address(name))
        if name.startswith("osd."):
            text += OSD.format(address=settings.address(name), number=name.removeprefix("osd."))
    return text


def _seed(settings: CephSettings) -> Path:
    """All keys and what they may do: the monitors begin with them, and nobody else needs the file."""
    return settings.home / "seed.keyring"


def _make_keys(settings: CephSettings) -> None:
    seed = ""
    for name in ("mon.", "client.admin", *settings.daemons):
        if name in settings.mon_daemons:
            continue  # they share the key of `mon.`
        kind = name if name in CAPS else name.partition(".")[0]
        own = f"[{name}]\n\tkey = {_key()}\n"
        seed += own + "".join(f'\tcaps {service} = "{caps}"\n' for service, caps in CAPS[kind].items())
        if name == "client.admin":
            files.write(settings.admin_keyring, own, 0o600)
        elif name != "mon.":
            settings.data(name).mkdir(mode=0o700)
            files.write(settings.data(name) / "keyring", own, 0o600)
    files.write(_seed(settings), seed, 0o600)


def _key() -> str:
    """A cephx secret: type 1 (AES), the time it was made, and 16 random bytes with their number."""
    return base64.b64encode(struct.pack("<hIIh", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)).decode()


def _makers(settings: CephSettings, fsid: str) -> Sequence[Callable[[], None]]:
    """What makes each store that needs a program for it; they don't wait for each other."""
    monmap = settings.home / "monmap"
    maps = [word for name in settings.mon_daemons for word in _map_entry(settings, name)]
    commands.run("monmaptool", "--create", "--clobber", "--fsid", fsid, *maps, str(monmap))

    def make_mon(name: str) -> None:
        settings.data(name).mkdir(mode=0o700)
        seed = ("--monmap", str(monmap), "--keyring", str(_seed(settings)))
        _make_store(settings, name, *seed)

    def make_osd(name: str) -> None:
        _make_store(settings, name, "--osd-uuid", str(uuid.uuid4()), "--no-mon-config")

    return [partial(make_mon, name) for name in settings.mon_daemons] + [
        partial(make_osd, name) for name in settings.osd_daemons
    ]


def _map_entry(settings: CephSettings, name: str) -> tuple[str, str, str]:
    return "--addv", name.removeprefix("mon."), settings.mon_addresses(name)


def _make_store(settings: CephSettings, name: str, *options: str) -> None:
    kind, _, number = name.partition(".")
    command = (f"ceph-{kind}", "--conf", str(settings.conf), "--id", number, "--mkfs", *options)
    try:
        commands.run(*command, timeout_s=180)
    except StackError as error:
        raise StackError(f"The store of Ceph's {name} could not be made.", error.details) from error
