"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from terrace.stack import postgres


def describe() -> str:
    """A Markdown list of the machine's size and the versions of what ran on it."""
    memory_kib = int(_find(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()))
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": _find("model name.*: (.*)", Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "load average at the end": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "PostgreSQL": _version(str(postgres.binaries() / "postgres"), "--version"),
        "Redis": _version("redis-server", "--version"),
        "HAProxy": _version("haproxy", "-v"),
        "libvirt": _version("libvirtd", "--version"),
        "Ceph": _version("ceph-osd", "--version"),
        "QEMU": _version("qemu-system-x86_64", "--version"),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _version(*command: str) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "not installed"
    return _find(r"(\d+\.\d+[\d.]*)", output)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else "unknown"
