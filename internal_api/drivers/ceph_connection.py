"""One connection to a Ceph cluster and to one of its pools, made when first needed and anew when it is lost.

Everything here blocks: it runs in the threads of an executor. Each call into librados is bounded by its own
options, which end it also while no monitor and no OSD answers.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internal_api.drivers import ceph_keyring, ceph_setup
from internal_api.drivers.ceph_binding import rados
from internal_api.drivers.ceph_errors import CEPH_ERRORS, is_lost, translate, translated, unavailable
from internal_api.drivers.ceph_fence import Fence
from internal_api.drivers.ceph_monitors import monitors_of_conf, monitors_of_map
from terrace import log
from terrace.errors import Permanent, Transient

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class CephSettings:
    """Which pool of which cluster, and as whom."""

    conf: Path
    pool: str
    user: str  # without ``client.``
    keyring: Path
    admin_keyring: Path | None = None
    timeout_s: float = 5.0

    def timeouts(self, times: int = 1) -> dict[str, str]:
        """Options of librados: whole seconds that it waits for an answer, so many times our bound."""
        names = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")
        return dict.fromkeys(names, str(math.ceil(times * self.timeout_s)))

    def options(self) -> dict[str, str]:
        """All options that differ from the configuration's, but the keyring."""
        return {
            **self.timeouts(),
            # a monitor that hangs is left for another one after this time, instead of 30 s
            "mon_client_ping_interval": "1",
            "mon_client_ping_timeout": str(math.ceil(self.timeout_s)),
            "rbd_default_clone_format": "2",
            "log_to_stderr": "false",
            "err_to_stderr": "false",
        }


@dataclass(eq=False, slots=True)
class Session:
    """A connection that was made. It ends when it is retired and nobody uses it any more."""

    cluster: Any
    pool: Any  # an I/O context
    pool_name: str
    client_id: int  # as the watchers of an image name it
    address: str  # of this one client
    users: int = 0
    retired: bool = False

    def ask(self, prefix: str, **arguments: Any) -> Any:
        """What the monitors answer to a command; raises librados' errors."""
        return json.loads(self.tell(prefix, **arguments))

    def tell(self, prefix: str, **arguments: Any) -> bytes:
        """Give the monitors a command."""
        words = json.dumps({"prefix": prefix, "format": "json", **arguments})
        status, answer, message = self.cluster.mon_command(words, b"")
        if status != 0:
            raise rados.OSError(f"{prefix}: {message}", errno=-status)
        return bytes(answer)


class CephConnection:
    """The same for all threads; at most one of them connects at a time."""

    def __init__(self, settings: CephSettings) -> None:
        self.settings = settings
        self._session: Session | None = None
        self._lock = threading.Lock()  # held while connecting
        self._counting = threading.Lock()
        self._fence = Fence()
        self._failed: tuple[float, Transient] | None = None
        self._monitors: tuple[tuple[str, int], ...] = ()
        self._fsid = ""

    def check(self) -> None:
        """Raises Permanent when the settings can never work."""
        settings = self.settings
        try:
            self._configured(settings.user, settings.keyring).shutdown()
        except CEPH_ERRORS as error:
            raise Permanent(
                "operation_failed", "Ceph's configuration can't be read.", internal=f"{settings.conf}: {error!r}"
            ) from error
        if settings.admin_keyring is None:
            ceph_keyring.read_key(settings.keyring, settings.user)
        else:
            ceph_keyring.read_key(settings.admin_keyring, "admin")

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """The connection, made now when there is none, for one call; raises what the call does as driver's errors.

        One that is of no more use afterwards is left, for the next call to make a new one.
        """
        session = self._lend()
        try:
            yield session
        except CEPH_ERRORS as error:
            if is_lost(error):
                self._retire(session, repr(error))
            raise translate(error) from error
        finally:
            self._give_back(session)

    def _lend(self) -> Session:
        asked = time.monotonic()
        while True:
            session = self._session or self._connect_once(asked)
            with self._counting:
                if not session.retired:
                    session.users += 1
                    return session

    def _give_back(self, session: Session) -> None:
        with self._counting:
            session.users -= 1
            ends = session.retired and session.users == 0
        if ends:  # may block, and nobody waits for it
            threading.Thread(target=self._end, args=(session,), daemon=True).start()
        elif self._fence.is_due:
            threading.Thread(target=self._put_up_fence, daemon=True).start()

    def _retire(self, session: Session, reason: str) -> None:
        with self._counting:
            if session.retired:
                return
            session.retired = True
            if self._session is session:
                self._session = None
        _log.info("ceph_session_left", reason=reason)

    def _end(self, session: Session) -> None:
        """Disconnect a session that was lost, and see to it that nothing that timed out in it happens later."""
        _shut(session)
        self._fence.add(session.address)
        self._put_up_fence()

    def _put_up_fence(self) -> None:
        current = self._session
        if current is not None:
            self._fence.put_up(current.tell)

    def _connect_once(self, asked: float) -> Session:
        with self._lock:
            session = self._session
            if session is not None:
                return session
            if self._failed is not None and self._failed[0] > asked:
                error = self._failed[1]  # whoever tried while we waited speaks for us too
                raise Transient(error.code, error.detail, internal=error.internal)
            try:
                self._session = session = self._connect()
                self._fence.put_up(session.tell)
            except Transient as error:
                self._failed = (time.monotonic(), error)
                raise
            return session

    def close(self) -> None:
        """Disconnect, now or when the calls that still run have ended; a later call would connect again."""
        with self._counting:
            session = self._session
            if session is None:
                return
            session.retired, self._session = True, None
            is_idle = session.users == 0
        if is_idle:  # else the last user ends it
            _shut(session)

    def identity(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """The cluster's id and its monitors, without asking it: as last seen, else as the configuration says."""
        if not self._fsid or not self._monitors:
            with translated():
                cluster = self._configured(self.settings.user, self.settings.keyring)
                fsid, hosts = cluster.conf_get("fsid"), cluster.conf_get("mon_host")
                cluster.shutdown()
            if not fsid or not hosts or uuid.UUID(fsid).int == 0:
                raise unavailable("neither the cluster nor its configuration has told its id and its monitors")
            self._fsid, self._monitors = fsid, monitors_of_conf(hosts)
        return self._fsid, self._monitors

    def _connect(self) -> Session:
        settings = self.settings
        with translated():
            if settings.admin_keyring is not None:
                self._set_up(settings.admin_keyring)
            cluster = self._connected(settings.user, settings.keyring)
            try:
                pool = cluster.open_ioctx(settings.pool)
                # A call that meets a full pool fails at once, and one that frees space succeeds. Otherwise librados
                # would hold both back until there is room again.
                pool.set_osdmap_full_try()
                session = Session(cluster, pool, settings.pool, cluster.get_instance_id(), cluster.get_addrs())
                self._fsid, self._monitors = cluster.get_fsid(), monitors_of_map(session.ask("mon dump"))
            except BaseException:
                cluster.shutdown()
                raise
        return session

    def _set_up(self, admin_keyring: Path) -> None:
        settings = self.settings
        admin = self._connected("admin", admin_keyring)
        try:
            ceph_setup.ensure_pool(admin, settings.pool)
            key = ceph_setup.ensure_user(admin, settings.user, settings.pool)
        finally:
            admin.shutdown()
        try:
            ceph_keyring.ensure_keyring(settings.keyring, settings.user, key)
        except OSError as error:
            raise unavailable(f"the keyring can't be written: {error}") from error

    def _connected(self, user: str, keyring: Path) -> Any:
        cluster = self._configured(user, keyring)
        try:
            cluster.connect()
        except BaseException:
            cluster.shutdown()
            raise
        return cluster

    def _configured(self, user: str, keyring: Path) -> Any:
        options = {**self.settings.options(), "keyring": str(keyring)}
        return rados.Rados(conffile=str(self.settings.conf), name=f"client.{user}", conf=options)


def _shut(session: Session) -> None:
    with contextlib.suppress(*CEPH_ERRORS):
        session.pool.close()
        session.cluster.shutdown()
