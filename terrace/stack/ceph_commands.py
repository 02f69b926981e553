"""The commands behind scripts/ceph: `python -m terrace.stack.ceph_commands COMMAND`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from terrace.stack import ceph_status, namespace
from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.ceph_settings import STORES
from terrace.stack.ceph_stack import cluster_of
from terrace.stack.control import Control
from terrace.stack.errors import StackError, told
from terrace.stack.process_record import signal_number
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NEXT = """\

Ceph is up, with pool {pool}.

  {inside}ceph --conf {conf} status
  scripts/ceph status          its daemons
  scripts/ceph kill osd.0      and scripts/ceph start osd.0: faults
  scripts/ceph down            {down}
  scripts/ceph destroy         stops it and removes its data"""
KEEPS = "stops it and keeps its data"
LOSES = "stops it; its data is in its memory, so the next `up` makes a new cluster"


def main() -> int:
    arguments = _parser().parse_args()
    return told(lambda: _run(arguments, StackSettings.load(CHECKOUT)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/ceph", description="A Ceph cluster for development and tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make the cluster, or start what is down")
    up.add_argument("--store", choices=STORES, help="keep data in memory (memstore) or in files (bluestore)")
    commands.add_parser("down", help="stop it; data stays, except that of a memstore cluster")
    commands.add_parser("destroy", help="stop it and remove its data")
    status = commands.add_parser("status", help="health and daemons; the exit status is 1 when it is not well")
    status.add_argument("--json", action="store_true", help="for programs")
    kill = commands.add_parser("kill", help="signal one daemon; nobody starts it again")
    kill.add_argument("daemon")
    kill.add_argument("signal", nargs="?", default="KILL", help="a signal's name or number (KILL; STOP freezes it)")
    commands.add_parser("start", help="start or wake one daemon").add_argument("daemon")
    return parser


def _run(arguments: argparse.Namespace, settings: StackSettings) -> int:
    if not namespace.is_inside(settings):
        return _in_namespace(arguments, settings)
    cluster = cluster_of(settings)
    match arguments.command:
        case "up":
            cluster = cluster_of(settings, arguments.store)
            cluster.up(Progress())
            print(_next_steps(settings, cluster))
        case "down":
            _down(cluster)
        case "destroy":
            _destroy(settings, cluster)
        case "status":
            return _status(cluster, arguments.json)
        case "kill":
            cluster.kill(arguments.daemon, signal_number(arguments.signal))
        case "start":
            cluster.start(arguments.daemon)
    return 0


def _in_namespace(arguments: argparse.Namespace, settings: StackSettings) -> int:
    """Does it in the stack's network namespace, which lives as long as the stack or the cluster."""
    existed = namespace.exists(settings)
    if arguments.command == "up" or not existed:
        namespace.ensure(settings)
    words = [sys.executable, "-m", "terrace.stack.ceph_commands", *sys.argv[1:]]
    status = subprocess.call(namespace.command(settings, words))
    ends = arguments.command in ("down", "destroy") or not existed
    if ends and not cluster_of(settings).is_running() and not Control(settings.layout.control_socket).is_running():
        namespace.remove(settings)
    return status


def _next_steps(settings: StackSettings, cluster: CephCluster) -> str:
    inside = f"sudo ip netns exec {settings.netns} " if settings.netns else ""
    down = LOSES if cluster.settings.store == "memstore" else KEEPS
    return NEXT.format(pool=cluster.settings.pool, conf=cluster.conf, inside=inside, down=down)


def _down(cluster: CephCluster) -> None:
    if not cluster.exists:
        print("nothing to stop: there is no Ceph cluster", file=sys.stderr)
        return
    cluster.down()
    print(f"ceph: {LOSES if cluster.settings.store == 'memstore' else KEEPS}".replace("stops it", "stopped"))


def _destroy(settings: StackSettings, cluster: CephCluster) -> None:
    if settings.storage == "rbd" and settings.layout.cluster.exists():
        raise StackError("The disks of this stack's VMs lie in the cluster: scripts/down --purge removes both.")
    cluster.destroy()


def _status(cluster: CephCluster, as_json: bool) -> int:
    status = cluster.status()
    if as_json:
        print(json.dumps(dataclasses.asdict(status), indent=2))
    else:
        print(ceph_status.text(cluster.settings, status))
    return 0 if status.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
