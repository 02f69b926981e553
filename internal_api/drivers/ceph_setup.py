"""What a cluster's administrator gives a node: the pool, and a user who may use just that pool.

All of it may be there already, or be made by another node at the same time. Raises librados' errors.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from internal_api.drivers.ceph_binding import rados, rbd

PLACEMENT_GROUPS = 32


def ensure_pool(admin: Any, pool: str) -> None:
    """A replicated pool for RBD."""
    if not admin.pool_exists(pool):
        _ask(admin, "osd pool create", pool=pool, pg_num=PLACEMENT_GROUPS, pool_type="replicated")
        admin.wait_for_latest_osdmap()
    details = {found["pool_name"]: found for found in _ask(admin, "osd pool ls", detail="detail")}
    if "rbd" not in details.get(pool, {}).get("application_metadata", ()):
        with admin.open_ioctx(pool) as io:
            rbd.RBD().pool_init(io, True)


def ensure_user(admin: Any, user: str, pool: str) -> str:
    """The user's key. One who is there already keeps the capabilities that somebody gave."""
    entity = f"client.{user}"
    caps = ["mon", "profile rbd", "osd", f"profile rbd pool={pool}", "mgr", f"profile rbd pool={pool}"]
    try:
        found = _ask(admin, "auth get", entity=entity)
    except rados.ObjectNotFound:
        found = _ask(admin, "auth get-or-create", entity=entity, caps=caps)
    return str(found[0]["key"])


def _ask(admin: Any, prefix: str, **arguments: Any) -> Any:
    words = json.dumps({"prefix": prefix, "format": "json", **arguments})
    status, answer, message = admin.mon_command(words, b"")
    if status == -errno.ENOENT:
        raise rados.ObjectNotFound(f"{prefix}: {message}", errno=errno.ENOENT)
    if status != 0:
        raise rados.OSError(f"{prefix}: {message}", errno=-status)
    return json.loads(answer) if answer else None
