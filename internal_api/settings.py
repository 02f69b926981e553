"""Settings of a virtualization node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from terrace.settings import CommonSettings
from terrace.store.nodes import Capacity


class InternalSettings(CommonSettings):
    """What one internal node is told at its start."""

    node_url: str
    agent_host: str = "127.0.0.1"
    agent_port: int = Field(ge=1, le=65535)
    state_dir: Path

    hypervisor: Literal["libvirt", "fake"] = "libvirt"
    libvirt_uri: str = "qemu:///system"
    domain_type: Literal["auto", "kvm", "qemu"] = "auto"
    emulator: str | None = None
    storage: Literal["dir", "rbd", "fake"] = "dir"
    pool_dir: Path = Path("/var/lib/terrace/pool")
    ceph_conf: Path = Path("/etc/ceph/ceph.conf")
    ceph_pool: str = Field(default="libvirt-pool", pattern=r"^[A-Za-z0-9_.-]{1,63}$")
    ceph_user: str = Field(default="terrace", pattern=r"^[A-Za-z0-9_.-]{1,63}$", description="Without `client.`")
    ceph_keyring: Path | None = Field(default=None, description="The user's; default: a file in the state folder")
    ceph_admin_keyring: Path | None = Field(
        default=None, description="With client.admin's keyring the node makes pool and user when they are absent"
    )
    ceph_timeout_s: float = Field(default=5.0, gt=0, description="Bound of each call to the cluster")
    network: Literal["bridge", "none"] = "bridge"
    console_log_dir: Path = Path("/var/log/terrace/console")
    fake_dir: Path | None = None

    cpu: int | None = Field(default=None, ge=1, description="Cores given to Terrace; default: all")
    ram_mib: int | None = Field(default=None, ge=64, description="Memory given to Terrace; default: all but 1 GiB")
    disk_gib: int | None = Field(default=None, ge=1, description="Pool size; default: what is free now")
    cpu_overcommit: float = Field(default=4.0, ge=0.1, le=64)
    ram_overcommit: float = Field(default=1.0, ge=0.1, le=16)
    disk_overcommit: float = Field(default=2.0, ge=0.1, le=64)

    worker_concurrency: int = Field(default=8, ge=1, le=64)
    retry_backoff_s: float = Field(
        default=0.2, gt=0, description="First pause after a failed step; the longest is 150 times it"
    )
    heartbeat_s: float = Field(default=1.0, gt=0)
    full_pass_s: float = Field(default=15.0, gt=0)
    max_image_bytes: int = Field(default=64 * 2**30, ge=1)
    image_timeout_s: float = Field(default=3600.0, gt=0)

    pool_check_s: float = Field(default=60.0, gt=0, description="Pause between two comparisons of pool and records")
    orphan_grace_s: float = Field(
        default=3600.0, ge=0, description="How long a volume of ours must be without a record before it is retired"
    )
    retired_kept_s: float = Field(
        default=7 * 86400.0, ge=0, description="How long a retired volume can still be brought back by hand"
    )

    def capacity(self, pool_gib: int | None) -> Capacity:
        """What this node offers: settings, else what the machine and the pool have (None: not known now)."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        return Capacity(
            cpu=self.cpu or os.cpu_count() or 1,
            cpu_overcommit=self.cpu_overcommit,
            ram_mib=self.ram_mib or max(pages - 1024, 64),
            ram_overcommit=self.ram_overcommit,
            disk_gib=self.disk_gib or pool_gib,
            disk_overcommit=self.disk_overcommit,
        )
