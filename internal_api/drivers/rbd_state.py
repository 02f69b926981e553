"""What an RBD pool says of itself: whether it answers, its room, its names. Blocking."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Mapping, Sequence
from typing import Any

from internal_api.drivers.ceph_binding import rados, rbd
from internal_api.drivers.ceph_connection import CephSettings, Session
from internal_api.drivers.protocols import PoolUsage
from internal_api.drivers.rbd_marks import RbdPool

_SPECIAL, _ESCAPED = re.compile(r"([:@=\\])"), r"\\\1"


def ping(session: Session) -> None:
    """Ask a monitor and an OSD; raises librados' errors."""
    session.ask("fsid")
    with contextlib.suppress(rados.ObjectNotFound):
        session.pool.stat("rbd_directory")


def is_full(session: Session) -> bool:
    """Whether the pool has reached its quota, or OSDs that it lies on are full."""
    pools = {found["pool_name"]: found for found in session.ask("osd pool ls", detail="detail")}
    return "full" in _of(pools, session)["flags_names"].split(",")


def usage(session: Session) -> PoolUsage:
    """As the pool's users see it: each byte once, however many OSDs have it."""
    pools = {found["name"]: found for found in session.ask("df", detail="detail")["pools"]}
    stats = _of(pools, session)["stats"]
    used, free, quota = int(stats["stored"]), int(stats["max_avail"]), int(stats["quota_bytes"])
    if quota:
        free = min(free, max(quota - used, 0))
    return PoolUsage(used + free, used)


def _of(pools: Mapping[str, Any], session: Session) -> Any:
    found = pools.get(session.pool_name)
    if found is None:
        raise rados.ObjectNotFound(f"the cluster has no pool {session.pool_name}", errno=errno.ENOENT)
    return found


def names(pool: RbdPool) -> Sequence[str]:
    """Of all images, anybody's."""
    return [str(name) for name in rbd.RBD().list(pool.io)]


def qemu_name(settings: CephSettings, image: str) -> str:
    """How qemu-img names an image: paths of the configuration and the keyring, never the key itself.

    https://www.qemu.org/docs/master/system/qemu-block-drivers.html#ceph-rbd-block-devices
    """
    options = {
        "id": settings.user,
        "conf": str(settings.conf.absolute()),
        "keyring": str(settings.keyring.absolute()),
        # many large writes at once take their time
        **settings.timeouts(2),
    }
    words = [f"{name}={_SPECIAL.sub(_ESCAPED, value)}" for name, value in options.items()]
    return ":".join([f"rbd:{settings.pool}/{image}", *words])
