"""What librados and librbd raise, as the errors of a driver."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from internal_api.drivers.ceph_binding import rados, rbd
from terrace.errors import TerraceError, Transient

CEPH_ERRORS: tuple[type[Exception], ...] = (rados.Error, rbd.Error)

# A client that was put on the cluster's blocklist, or whose key is no longer good, stays so until it connects anew.
# And what timed out may still happen: an image's lock that such a client has got without knowing is one that it can
# neither use nor break, as only a lock of another client can be broken. Then it can't take a lock either (EROFS).
_LOST = {errno.ESHUTDOWN, errno.ENOTCONN, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.EROFS}


def pool_full(internal: str | None = None) -> Transient:
    """The one error of a pool without room."""
    return Transient("pool_full", "The storage pool is full.", internal=internal)


def unavailable(internal: str) -> Transient:
    """The one error of a cluster that does not answer, or not as it should."""
    return Transient("storage_unavailable", "The storage cluster does not answer.", internal=internal)


def in_use(internal: str) -> Transient:
    """The one error of a volume that somebody has open."""
    return Transient("volume_in_use", "The volume is in use.", internal=internal)


def number_of(error: Exception) -> int:
    """Its errno, positive; 0 when it has none."""
    return abs(int(getattr(error, "errno", 0) or 0))


def is_lost(error: Exception) -> bool:
    """Whether the connection that raised this is of no more use."""
    return number_of(error) in _LOST


def translate(error: Exception) -> TerraceError:
    """Which of the driver's errors this is."""
    match number_of(error):
        case errno.ENOSPC | errno.EDQUOT:
            return pool_full(repr(error))
        case errno.EBUSY:
            return in_use(repr(error))
        case _:
            return unavailable(repr(error))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what librados and librbd raise as the driver's errors."""
    try:
        yield
    except CEPH_ERRORS as error:
        raise translate(error) from error
