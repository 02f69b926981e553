"""Asking and telling a Ceph cluster as its administrator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from terrace.stack.ceph_settings import CephSettings
from terrace.stack.errors import StackError

ANSWER_S = 10


class CephAdmin:
    """A connection of client.admin."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def ask(self, prefix: str, **arguments: Any) -> Any:
        """Gives the monitors a command; its answer, or StackError when they refuse or don't answer."""
        return self._answer(prefix, self._cluster.mon_command, arguments)

    def ask_mgr(self, prefix: str, **arguments: Any) -> Any:
        """The same of the mgr, which knows what the OSDs report."""
        return self._answer(prefix, self._cluster.mgr_command, arguments)

    def lives(self) -> dict[str, int]:
        """For each OSD that is up and the active mgr, a number that every start of it changes."""
        mgr = self.ask("mgr dump")
        lives = {name: osd["up_from"] for name, osd in self.osds().items() if osd["up"]}
        return lives | ({f"mgr.{mgr['active_name']}": mgr["active_gid"]} if mgr["available"] else {})

    def unclean_groups(self) -> int:
        """How many placement groups lack copies; those whose last report is older than an OSD of theirs too."""
        lives = self.lives()
        groups = self.ask_mgr("pg dump", dumpcontents=["pgs"])["pg_stats"]
        return sum(
            group["state"] != "active+clean"
            or any(lives.get(f"osd.{number}", 0) > int(group["reported_epoch"]) for number in group["acting"])
            for group in groups
        )

    def osds(self) -> dict[str, dict[str, Any]]:
        """What the monitors know of each OSD."""
        return {f"osd.{osd['osd']}": osd for osd in self.ask("osd dump")["osds"]}

    def _answer(self, prefix: str, send: Callable[[str, bytes, int], Any], arguments: dict[str, Any]) -> Any:
        words = json.dumps({"prefix": prefix, "format": "json", **arguments})
        try:
            status, answer, message = send(words, b"", ANSWER_S)
        except Exception as error:  # librados has an exception for each errno
            raise StackError(f"Ceph did not answer `{prefix}`: {error}.") from error
        if status != 0:
            raise StackError(f"Ceph refused `{prefix}`.", str(message))
        return json.loads(answer) if answer else None

    def ensure_pool(self, name: str) -> None:
        """A pool for disks, usable at once: an object was written to it and removed again."""
        import rbd

        if not self._cluster.pool_exists(name):
            # clones of unprotected snapshots, which is what disks are
            self.ask("osd set-require-min-compat-client", version="mimic")
            self.ask("osd pool create", pool=name, pool_type="replicated")
        with self._cluster.open_ioctx(name) as pool:
            rbd.RBD().pool_init(pool, True)
            pool.write_full("terrace.probe", b"")
            pool.remove_object("terrace.probe")


@contextmanager
def connected(settings: CephSettings, timeout_s: int = 15) -> Iterator[CephAdmin]:
    """A connection; StackError when the monitors don't answer in that time."""
    cluster = _client(settings, timeout_s)
    try:
        try:
            cluster.connect()
        except Exception as error:
            raise StackError(f"Ceph's monitors don't answer: {error}.") from error
        yield CephAdmin(cluster)
    finally:
        cluster.shutdown()


def is_in_quorum(settings: CephSettings, mon: str) -> bool:
    """What that monitor itself says, also while the others don't answer."""
    cluster = _client(settings, 1)  # a new one each time: librados aborts when one asks twice
    try:
        answer = json.loads(cluster.ping_monitor(mon.removeprefix("mon.")))
    except Exception:  # it isn't ready to speak
        return False
    finally:
        cluster.shutdown()
    return answer["mon_status"]["state"] in ("leader", "peon")


def _client(settings: CephSettings, timeout_s: int) -> Any:
    try:
        import rados
    except ImportError as error:
        raise StackError("python3-rados is not installed; scripts/ceph up installs it.", str(error)) from error
    limits = {name: str(timeout_s) for name in ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")}
    # one that starts refuses connections for a moment; the next attempt shall not be seconds away
    limits["ms_max_backoff"] = "0.2"
    return rados.Rados(conffile=str(settings.conf), name="client.admin", conf=limits)
