"""Ceph's Python libraries, which belong to Debian's packages and not to PyPI; only ``ceph_*`` and ``rbd_*`` use them.

Importing this raises Permanent where they are missing, as no retry will bring them.
"""

from __future__ import annotations

from terrace.errors import Permanent

try:
    import rados
    import rbd
except ImportError as error:
    raise Permanent(
        "operation_failed",
        "Storage on Ceph needs the packages python3-rados and python3-rbd, made for this Python.",
        internal=str(error),
    ) from error

__all__ = ["rados", "rbd"]
