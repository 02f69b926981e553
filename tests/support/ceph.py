"""A real Ceph cluster in the tests' network namespace, started when it is first wanted."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.ceph_settings import CephSettings

# destroys the cluster of a test run that was killed: the pipe that it reads from ends with the run
_GUARD = """
import shutil, sys
from pathlib import Path
from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.ceph_settings import CephSettings
sys.stdin.read()
home = Path(sys.argv[1])
CephCluster(CephSettings(home, "127.0.0")).destroy()
shutil.rmtree(home.parent, ignore_errors=True)
"""


@contextmanager
def running(net: str, *, mons: int = 3, osds: int = 3) -> Iterator[CephCluster]:
    """A cluster of one's own with its data in memory. ``net``: the first three bytes of its addresses."""
    # a path short enough for sockets and for people
    folder = Path(tempfile.mkdtemp(prefix="terrace-test-ceph-"))
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(folder / "ceph")], stdin=subprocess.PIPE, start_new_session=True
    )
    cluster = CephCluster(CephSettings(folder / "ceph", net, mons=mons, osds=osds))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.destroy()
        guard.communicate()  # which removes the folder too


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """The run's cluster: three monitors, a mgr, three OSDs. Tests leave its daemons running and its pool in place."""
    with running("127.77.1") as cluster:
        yield cluster
