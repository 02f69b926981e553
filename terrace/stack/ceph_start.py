"""Starting the daemons of a Ceph cluster whose files are made, and waiting until it serves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable

from terrace.stack import ceph_files, ceph_ports
from terrace.stack.ceph_admin import CephAdmin, connected, is_in_quorum
from terrace.stack.ceph_daemons import Daemons
from terrace.stack.ceph_settings import CephSettings
from terrace.stack.errors import StackError
from terrace.stack.progress import Progress

START_S = 120.0
PAUSE_S = 0.05


def start_all(settings: CephSettings, progress: Progress) -> None:
    """Starts what doesn't run, makes the pool, and waits until every placement group has all its copies."""
    daemons = Daemons(settings)
    others = ("mgr.x", *settings.osd_daemons)
    _start_mons(settings, daemons, settings.mon_daemons)
    with connected(settings) as ceph:
        progress.say(f"ceph: {settings.mons} monitors agree")
        _register_osds(settings, ceph)
        _start_and_wait(daemons, ceph, others)
        ceph.ensure_pool(settings.pool)
        progress.say(f"ceph: {settings.osds} OSDs serve pool {settings.pool}")
        _wait(daemons, lambda: _unclean(ceph), settings.daemons)
    progress.say("ceph: all data has all its copies")


def start_one(settings: CephSettings, daemon: str) -> None:
    """Raises StackError when it ends at once, or the cluster doesn't take it in."""
    daemons = Daemons(settings)
    if daemon in settings.mon_daemons:
        _start_mons(settings, daemons, [daemon])
    else:
        with connected(settings) as ceph:
            _start_and_wait(daemons, ceph, [daemon])


def _start_mons(settings: CephSettings, daemons: Daemons, names: Collection[str]) -> None:
    """Until they have elected a leader: a client that connects earlier waits for seconds before it tries again."""
    ceph_ports.refuse_ports(settings, [name for name in names if name not in daemons.living()])
    _wake_or_start(daemons, names)
    _wait(daemons, lambda: [name for name in names if not ceph_ports.listens(settings, name)], names)
    _wait(daemons, lambda: [name for name in names if not is_in_quorum(settings, name)], names)


def _start_and_wait(daemons: Daemons, ceph: CephAdmin, names: Collection[str]) -> None:
    """OSDs and the mgr. The cluster counts a dead one in for a while, so what it says of the dead is not enough."""
    before = {name: life for name, life in ceph.lives().items() if name not in daemons.living()}
    _wake_or_start(daemons, names)

    def missing() -> Collection[str]:
        lives = ceph.lives()
        return [name for name in names if lives.get(name) in (None, before.get(name))]

    _wait(daemons, missing, names)


def _wake_or_start(daemons: Daemons, names: Iterable[str]) -> None:
    for name in names:
        process = daemons.living().get(name)
        if process is None:
            daemons.start(name)
        else:
            os.kill(process.pid, signal.SIGCONT)


def _register_osds(settings: CephSettings, ceph: CephAdmin) -> None:
    known = ceph.osds()
    for number, name in enumerate(settings.osd_daemons):
        if name not in known:
            ceph.ask("osd new", uuid=ceph_files.osd_uuid(settings, number), id=number)


def _wait(daemons: Daemons, missing: Callable[[], Collection[str]], needed: Collection[str]) -> None:
    """Until nothing is missing any more. StackError as soon as a needed daemon ended."""
    deadline = time.monotonic() + START_S
    while absent := missing():
        living = daemons.living()
        for name in needed:
            if name not in living:
                raise StackError(f"Ceph's {name} ended soon after it was started.", daemons.last_words(name))
        if time.monotonic() > deadline:
            words = "\n".join(daemons.last_words(name) for name in absent)
            raise StackError(f"Ceph is not ready after {START_S:g} s: it waits for {', '.join(absent)}.", words)
        time.sleep(PAUSE_S)


def _unclean(ceph: CephAdmin) -> list[str]:
    count = ceph.unclean_groups()
    return [f"{count} placement groups"] if count else []
