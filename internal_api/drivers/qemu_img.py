"""``qemu-img``, with bounds for files that are not trusted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from internal_api.drivers import command
from internal_api.drivers.image_header import image_invalid
from terrace.errors import Transient

CREATE_TIMEOUT_S = 30.0
CHECK_TIMEOUT_S = 120.0
CHECK_CPU_S = 60
CHECK_MEMORY_BYTES = 1024**3
_CHECK_LEAKED_CLUSTERS = 3  # exit status of ``qemu-img check``: space is wasted, the content is right


async def create_overlay(path: Path, *, backing: str, backing_format: str, size_bytes: int) -> None:
    """A qcow2 file over ``backing`` (relative to the overlay's folder)."""
    # -u: the format and the size are given, so that the backing file need not be opened
    arguments = ("-q", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing)
    await _change("create", *arguments, "--", str(path), str(size_bytes))


async def resize(path: Path, size_bytes: int) -> None:
    """Grow a qcow2 file that no running domain has open."""
    await _change("resize", "-q", "-f", "qcow2", "--", str(path), str(size_bytes))


async def check(path: Path) -> None:
    """Open a qcow2 file and follow its tables; raises Permanent ``image_invalid`` when they are not sound."""
    limits = ("prlimit", f"--as={CHECK_MEMORY_BYTES}", f"--cpu={CHECK_CPU_S}", "--core=0", "--")
    arguments = ("qemu-img", "check", "-q", "-f", "qcow2", "--", str(path))
    done = await command.run(*limits, *arguments, timeout_s=CHECK_TIMEOUT_S)
    if done.status not in (0, _CHECK_LEAKED_CLUSTERS):
        error = image_invalid("The qcow2 image is damaged or cut off.")
        error.internal = f"qemu-img check: {done.status}: {done.stderr}"
        raise error


async def _change(*arguments: str) -> None:
    done = await command.run("qemu-img", *arguments, timeout_s=CREATE_TIMEOUT_S)
    if done.status == 0:
        return
    if os.strerror(errno.ENOSPC) in done.stderr:  # qemu-img tells it in words only
        raise Transient("pool_full", "The storage pool is full.", internal=done.stderr)
    raise Transient("service_unavailable", "The storage pool does not work.", internal=done.stderr)
