"""A real Ceph cluster on this machine's loopback addresses, for development and tests.

Its daemons are plain processes without a supervisor: fault tests end them, and nobody starts them again.
"""

from __future__ import annotations

import shutil
import signal
from contextlib import AbstractContextManager
from pathlib import Path

from terrace.stack import ceph_files, ceph_start, ceph_status
from terrace.stack.ceph_daemons import Daemons
from terrace.stack.ceph_settings import CephSettings, as_made
from terrace.stack.ceph_status import ClusterStatus
from terrace.stack.errors import StackError
from terrace.stack.lock import locked
from terrace.stack.progress import Progress


class CephCluster:
    """One cluster in one home directory. A cluster that is there keeps the shape it was made with."""

    def __init__(self, settings: CephSettings) -> None:
        self._wanted = settings

    @property
    def settings(self) -> CephSettings:
        return as_made(self._wanted) or self._wanted

    @property
    def conf(self) -> Path:
        return self._wanted.conf

    @property
    def admin_keyring(self) -> Path:
        return self._wanted.admin_keyring

    @property
    def exists(self) -> bool:
        return self._wanted.shape_file.exists()

    def is_running(self) -> bool:
        """Whether any of its daemons runs."""
        return bool(Daemons(self.settings).living())

    def dead_daemons(self) -> list[str]:
        living = Daemons(self.settings).living()
        return [name for name in self.settings.daemons if name not in living]

    def has_lost_its_data(self) -> bool:
        """Whether it kept its data in the memory of processes that have all ended."""
        settings = self.settings
        living = Daemons(settings).living()
        return (
            settings.store == "memstore"
            and settings.made_mark.exists()
            and not any(name in living for name in settings.osd_daemons)
        )

    def up(self, progress: Progress | None = None) -> None:
        """Makes what lacks, starts what is down, and waits until all data is safe on all OSDs.

        Raises StackError, naming the daemon; then what this call had started is stopped again.
        """
        progress = progress or Progress.silent()
        self._wanted.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(progress):
            self._refuse_other_store()
            if self.has_lost_its_data():
                progress.say("ceph: what it had in memory is gone, making a new one")
                self._end_and_forget()
            settings = self.settings
            ran_before = set(Daemons(settings).living())
            try:
                if not settings.made_mark.exists():
                    ceph_files.make(settings)
                    progress.say(f"ceph: made, with {settings.store}")
                ceph_start.start_all(settings, progress)
            except BaseException:
                daemons = Daemons(settings)
                daemons.stop(set(daemons.living()) - ran_before)
                raise

    def down(self) -> None:
        """Ends all daemons. Data stays, except that of a memstore cluster, which was in their memory."""
        if self.exists:
            with self._locked():
                daemons = Daemons(self.settings)
                daemons.stop(daemons.living())

    def destroy(self) -> None:
        """Ends all daemons and removes the home directory."""
        if self.exists:
            with self._locked():
                self._end_and_forget()
                shutil.rmtree(self._wanted.home)

    def status(self, timeout_s: int = 10) -> ClusterStatus:
        self._need()
        return ceph_status.read(self.settings, timeout_s)

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """Signals one daemon; after SIGKILL it is gone when this returns. Raises StackError if it doesn't run."""
        self._need(daemon)
        Daemons(self.settings).kill(daemon, number)

    def start(self, daemon: str) -> None:
        """Starts one daemon, or wakes it, and waits until the cluster counts it in; data may lag behind."""
        self._need(daemon)
        with self._locked():
            ceph_start.start_one(self.settings, daemon)

    def _locked(self, progress: Progress | None = None) -> AbstractContextManager[None]:
        say = (progress or Progress.silent()).say
        return locked(self._wanted.home / ".lock", lambda: say("waiting for another command for this Ceph cluster"))

    def _need(self, daemon: str | None = None) -> None:
        if not self.exists:
            raise StackError(f"There is no Ceph cluster in {self._wanted.home}: scripts/ceph up makes one.")
        names = self.settings.daemons
        if daemon is not None and daemon not in names:
            raise StackError(f"There is no daemon {daemon}; there are {', '.join(names)}.")

    def _refuse_other_store(self) -> None:
        store = self.settings.store
        if self._wanted.store != store and not self.has_lost_its_data():
            raise StackError(
                f"The Ceph cluster in {self._wanted.home} keeps its data in {store}: "
                f"run scripts/ceph destroy before changing it to {self._wanted.store}."
            )

    def _end_and_forget(self) -> None:
        """The logs are left."""
        settings = self.settings
        daemons = Daemons(settings)
        daemons.stop(daemons.living(), signal.SIGKILL)
        settings.shape_file.unlink()
        settings.made_mark.unlink(missing_ok=True)
