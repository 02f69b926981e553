"""Which of our lost sessions the OSDs are still to refuse, told to the cluster a few at a time."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable

from internal_api.drivers.ceph_errors import CEPH_ERRORS
from terrace import log

_log = log.get(__name__)
FENCED_S = 3600.0
AT_ONCE = 10  # a cluster that comes and goes would get a long list otherwise, which every OSD and client reads
EVERY_S = 60.0  # one more


class Fence:
    """For all threads. What there is no allowance for now waits for a later :meth:`put_up`."""

    def __init__(self) -> None:
        self._left: list[str] = []
        self._lock = threading.Lock()
        self._allowed, self._counted = float(AT_ONCE), time.monotonic()

    def add(self, address: str) -> None:
        """Note a session that is gone, unless this would name more than it: all clients of its host, say."""
        nonces = re.findall(r":\d+/(\d+)", address)
        if nonces and all(int(nonce) for nonce in nonces):
            self._left.append(address)

    @property
    def is_due(self) -> bool:
        """Whether :meth:`put_up` would tell the cluster something now."""
        return bool(self._left) and self._allowance() >= 1

    def put_up(self, tell: Callable[..., object]) -> None:
        """Have the OSDs refuse what sessions that are gone have sent, and forget their watches.

        An OSD that was frozen would keep a watch of theirs that it has just read, for ever.
        """
        while self._left and self._take():
            address = self._left[-1]
            try:
                tell("osd blocklist", blocklistop="add", addr=address, expire=FENCED_S)
            except CEPH_ERRORS as error:
                _log.warning("ceph_session_not_fenced", reason=repr(error))
                return  # a later call does it
            with contextlib.suppress(ValueError):  # another thread was quicker
                self._left.remove(address)

    def _allowance(self) -> float:
        return min(AT_ONCE, self._allowed + (time.monotonic() - self._counted) / EVERY_S)

    def _take(self) -> bool:
        with self._lock:
            allowed = self._allowance()
            if allowed < 1:
                return False
            self._allowed, self._counted = allowed - 1, time.monotonic()
            return True
