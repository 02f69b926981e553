"""A libvirtd of the test's own: private mounts, processes and, mostly, network.

It is gone with the test, guests and all.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from pathlib import Path

from internal_api.drivers.protocols import Hypervisor
from terrace.errors import Transient

BRIDGE = "terrace0"
CONNECT_TIMEOUT_S = 60.0

_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""

# bash is process 1 of the namespace, so that it reaps QEMU at once and takes all with it when it goes
_SCRIPT = """
set -eu
mount -t tmpfs none /run
mkdir -p /run/libvirt /run/lock
mount --bind "$1/etc" /etc/libvirt
for name in lib log cache; do mkdir -p "$1/$name"; done
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/log" /var/log/libvirt
mount --bind "$1/cache" /var/cache/libvirt
ip link set lo up
if [ -n "$2" ]; then
    ip link add "$2" type bridge
    ip link set "$2" up
fi
while :; do
    libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirtd.pid >>"$1/log/out" 2>&1 || true
    rm -f "$1/sock/libvirt-sock"
    sleep 0.2
done
"""


class PrivateLibvirtd:
    """Start it, use ``uri``, stop it. :meth:`restart` ends the daemon as ``systemctl restart`` would.

    ``shares_network``: for guests that need what the test reaches, a Ceph cluster for one.
    """

    def __init__(self, folder: Path, *, shares_network: bool = False) -> None:
        self.folder = folder
        self._own_network = [] if shares_network else ["--net"]
        self.uri = f"qemu+unix:///system?socket={folder}/sock/libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir(parents=True)
        (self.folder / "sock").mkdir()
        (etc / "qemu.conf").write_text(_QEMU_CONF)
        (etc / "libvirtd.conf").write_text(
            f'host_uuid = "{uuid.uuid4()}"\nunix_sock_dir = "{self.folder}/sock"\n'
            'auth_unix_rw = "none"\nunix_sock_group = "root"\nlisten_tls = 0\nlisten_tcp = 0\n'
        )
        known = Path("/var/cache/libvirt/qemu")
        if known.is_dir():  # what QEMU can do: a probe of many seconds
            shutil.copytree(known, self.folder / "cache" / "qemu")
        namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        namespaces += ["--mount-proc", *self._own_network]
        script = ["bash", "-c", _SCRIPT, "libvirtd", str(self.folder), BRIDGE if self._own_network else ""]
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, *script])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the daemon's namespaces."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        target = ["nsenter", "-t", children[0], "--mount", "--pid", *self._own_network, "--"]
        return subprocess.run([*target, *command], capture_output=True, text=True, check=False)

    def restart(self) -> None:
        """Kill the daemon; guests run on, and the daemon is back within a second."""
        assert self.inside("sh", "-c", "kill -KILL $(cat /run/libvirtd.pid)").returncode == 0


async def connected(hypervisor: Hypervisor) -> None:
    """Connect, once a daemon that has just been started is there."""
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        while True:
            try:
                return await hypervisor.connect()
            except Transient:
                await asyncio.sleep(0.1)
