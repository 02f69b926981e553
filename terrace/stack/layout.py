"""Where everything of a stack lies: one directory tree under `var`."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from terrace.stack.errors import StackError

# unix(7): sun_path holds 108 bytes with its final zero
LONGEST_SOCKET_PATH = 107
LONGEST_SOCKET_NAME = len("hv10/libvirt-admin-sock")


@dataclass(frozen=True)
class Layout:
    """Paths under one `var`; nothing is created by asking for a path."""

    var: Path

    @property
    def settings_file(self) -> Path:
        return self.var / "stack.env"

    @property
    def env_file(self) -> Path:
        """For people: `. var/env` sets TERRACE_URL and TERRACE_TOKEN."""
        return self.var / "env"

    @property
    def run(self) -> Path:
        return self.var / "run"

    @property
    def pids(self) -> Path:
        """Which process is which, kept for the case that the supervisor dies."""
        return self.run / "pids"

    @property
    def log(self) -> Path:
        return self.var / "log"

    @property
    def secrets(self) -> Path:
        return self.var / "secrets"

    @property
    def config(self) -> Path:
        return self.var / "config"

    @property
    def cluster(self) -> Path:
        return self.var / "postgres"

    @property
    def ceph(self) -> Path:
        """Everything of the Ceph cluster, if there is one."""
        return self.var / "ceph"

    @property
    def ssh_key(self) -> Path:
        return self.var / "ssh" / "id_ed25519"

    @property
    def token_file(self) -> Path:
        return self.secrets / "admin_token"

    @property
    def lock_file(self) -> Path:
        return self.var / ".lock"

    @property
    def capability_cache(self) -> Path:
        """What libvirt learned about QEMU (seconds of work), shared by this stack's hypervisors."""
        return self.var / "cache" / "libvirt"

    def node(self, name: str) -> Path:
        """Everything of one hypervisor node."""
        return self.var / name

    def log_of(self, member: str) -> Path:
        return self.log / f"{member}.log"

    @property
    def mark(self) -> str:
        """A short name for this stack, where its path would be too long."""
        return hashlib.sha256(os.fsencode(self.var)).hexdigest()[:12]

    @property
    def real_sockets(self) -> Path:
        return self.var / "sock"

    @property
    def short_sockets(self) -> Path:
        return Path("/tmp") / f"terrace-{self.mark}"  # noqa: S108 - checked by make_sockets

    @property
    def sockets(self) -> Path:
        """Directory of all unix sockets: under `var`, or a short link to it when that path is too long."""
        longest = len(os.fsencode(self.real_sockets)) + 1 + LONGEST_SOCKET_NAME
        return self.real_sockets if longest <= LONGEST_SOCKET_PATH else self.short_sockets

    @property
    def control_socket(self) -> Path:
        return self.sockets / "stack"

    def make_sockets(self) -> None:
        """Creates the sockets' directory. Raises StackError if its short link is somebody else's."""
        self.real_sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.sockets == self.real_sockets:
            return
        link = self.short_sockets
        if not os.path.lexists(link):
            link.symlink_to(self.real_sockets)
        ours = link.is_symlink() and link.lstat().st_uid == os.geteuid()
        if not ours or link.readlink() != self.real_sockets:
            raise StackError(f"{link} should be a link to this stack's sockets and is something else; remove it.")
