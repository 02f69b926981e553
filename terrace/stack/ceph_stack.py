"""The stack's own Ceph cluster, on which its guests' disks lie with TERRACE_STORAGE=rbd."""

from __future__ import annotations

import dataclasses
import shutil

from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.ceph_settings import CephSettings, Store, net_of
from terrace.stack.errors import StackError
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings

LARGEST_OSD_GIB = 100


def cluster_of(settings: StackSettings, store: Store | None = None) -> CephCluster:
    """The cluster under `var`, there or not. Without a `store` it stays, or will be, what the stack wants."""
    plain = CephSettings(settings.layout.ceph, net_of(settings.port_base))
    there = CephCluster(plain)
    if store is None:
        wanted: Store = settings.ceph_store if settings.storage == "rbd" else "memstore"
        store = there.settings.store if there.exists else wanted
    size = plain.osd_gib if store == "memstore" else _osd_gib(settings, plain.osds)
    return CephCluster(dataclasses.replace(plain, store=store, osd_gib=size))


def _osd_gib(settings: StackSettings, osds: int) -> int:
    """All that is free, in files that take only what is written to them."""
    near = next(path for path in (settings.var, *settings.var.parents) if path.exists())
    return min(LARGEST_OSD_GIB, max(10, shutil.disk_usage(near).free // 1024**3 // osds))


def ensure(settings: StackSettings, progress: Progress) -> None:
    """Makes and starts the cluster, if the stack wants one. StackError when the stack's disks are lost."""
    if settings.storage != "rbd":
        return
    cluster = cluster_of(settings)
    if settings.layout.cluster.exists() and (not cluster.exists or cluster.has_lost_its_data()):
        raise StackError(
            "The Ceph cluster with the disks of this stack's VMs is gone (one with memstore ends with its "
            "processes): run scripts/down --purge before scripts/up makes a new stack."
        )
    cluster.up(progress)


def stop(settings: StackSettings, progress: Progress) -> None:
    """Stops the cluster, also one that was started without the stack."""
    cluster = cluster_of(settings)
    if cluster.exists and cluster.is_running():
        cluster.down()
        progress.say("ceph stopped")


def environment(settings: StackSettings) -> dict[str, str]:
    """What an internal node must know to use the cluster, under the names of its settings."""
    cluster = cluster_of(settings)
    return {
        "STORAGE": "rbd",
        "CEPH_CONF": str(cluster.conf),
        "CEPH_ADMIN_KEYRING": str(cluster.admin_keyring),
        "CEPH_POOL": cluster.settings.pool,
    }


def summary(settings: StackSettings) -> tuple[str, bool]:
    """One line for the stack's status, and whether all daemons run; the cluster itself isn't asked."""
    cluster = cluster_of(settings)
    lacking = cluster.dead_daemons()
    count = len(cluster.settings.daemons)
    which = f"; dead: {', '.join(lacking)}" if lacking else ""
    return f"Ceph: {count - len(lacking)} of {count} daemons run{which} (scripts/ceph status)", not lacking
