"""Settings of a virtualization node."""

from __future__ import annotations

import os
import shutil
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
    storage: Literal["dir", "fake"] = "dir"
    pool_dir: Path = Path("/var/lib/terrace/pool")
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

    def capacity(self) -> Capacity:
        """What this node offers: settings, else what the machine has."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        self.pool_dir.mkdir(parents=True, exist_ok=True)
        return Capacity(
            cpu=self.cpu or os.cpu_count() or 1,
            cpu_overcommit=self.cpu_overcommit,
            ram_mib=self.ram_mib or max(pages - 1024, 64),
            ram_overcommit=self.ram_overcommit,
            disk_gib=self.disk_gib or max(shutil.disk_usage(self.pool_dir).free // 2**30, 1),
            disk_overcommit=self.disk_overcommit,
        )
