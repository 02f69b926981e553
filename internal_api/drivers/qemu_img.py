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
CONVERT_TIMEOUT_S = 3600.0
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


async def create_empty(path: Path, size_bytes: int) -> None:
    """A sparse qcow2 file that reads as zeros."""
    await _change("create", "-q", "-f", "qcow2", "--", str(path), str(size_bytes))


async def create_snapshot(path: Path, name: str) -> None:
    """Inside a qcow2 file that nobody has open; the name must be new."""
    await _change("snapshot", "-q", "-c", name, str(path))


async def remove_snapshot(path: Path, name: str) -> None:
    """From a qcow2 file that nobody has open."""
    await _change("snapshot", "-q", "-d", name, str(path))


async def apply_snapshot(path: Path, name: str) -> None:
    """Give a qcow2 file that nobody has open the content, and the size, of one of its snapshots."""
    await _change("snapshot", "-q", "-a", name, str(path), timeout_s=CHECK_TIMEOUT_S)


async def copy_snapshot(path: Path, name: str, target: Path, size_bytes: int) -> None:
    """A snapshot of a qcow2 file, open elsewhere or not, as a qcow2 file that needs no other.

    ``size_bytes`` is the size at the snapshot, at most that of the file now.
    """
    source = ("-U", "-f", "qcow2", "-l", f"snapshot.name={name}")
    await _change("convert", *source, "-O", "qcow2", str(path), str(target), timeout_s=CONVERT_TIMEOUT_S)
    # the copy is as large as the file is now (QEMU 7.2)
    await _change("resize", "-q", "--shrink", "-f", "qcow2", "--", str(target), str(size_bytes))


async def fill(path: Path, image_format: str, target: str) -> None:
    """Copy an image's disk into a raw target that is there and empty; ``target`` as QEMU names it.

    Raises Permanent ``image_invalid`` when the image can't be read. Ends with this process, whatever ends it.
    """
    arguments = ("convert", "-n", "--target-is-zero", "-f", image_format, "-O", "raw", str(path), target)
    bound = ("setpriv", "--pdeathsig", "KILL", "--")
    done = await command.run(*bound, "qemu-img", *arguments, timeout_s=CONVERT_TIMEOUT_S)
    if done.status == 0:
        return
    if "error while reading" in done.stderr:
        error = image_invalid("The image's data are damaged.")
        error.internal = done.stderr
        raise error
    raise _error(done.stderr)


async def check(path: Path) -> None:
    """Open a qcow2 file and follow its tables; raises Permanent ``image_invalid`` when they are not sound."""
    limits = ("prlimit", f"--as={CHECK_MEMORY_BYTES}", f"--cpu={CHECK_CPU_S}", "--core=0", "--")
    arguments = ("qemu-img", "check", "-q", "-f", "qcow2", "--", str(path))
    done = await command.run(*limits, *arguments, timeout_s=CHECK_TIMEOUT_S)
    if done.status not in (0, _CHECK_LEAKED_CLUSTERS):
        error = image_invalid("The qcow2 image is damaged or cut off.")
        error.internal = f"qemu-img check: {done.status}: {done.stderr}"
        raise error


async def _change(*arguments: str, timeout_s: float = CREATE_TIMEOUT_S) -> None:
    done = await command.run("qemu-img", *arguments, timeout_s=timeout_s)
    if done.status != 0:
        raise _error(done.stderr)


def _error(stderr: str) -> Transient:
    """qemu-img tells its reasons in words only."""
    if os.strerror(errno.ENOSPC) in stderr or os.strerror(errno.EDQUOT) in stderr:
        return Transient("pool_full", "The storage pool is full.", internal=stderr)
    if 'Failed to get "' in stderr:  # its lock on a file
        return Transient("volume_in_use", "The volume is in use.", internal=stderr)
    return Transient("service_unavailable", "The storage pool does not work.", internal=stderr)
