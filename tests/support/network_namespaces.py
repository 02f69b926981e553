"""Network namespaces for the thread that runs the test: sockets and processes made inside stay there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Be in a namespace (by its file descriptor), then back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.setns(namespace, _CLONE_NEWNET))
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


@contextlib.contextmanager
def new_namespace() -> Iterator[int]:
    """A namespace with its loopback up, gone when nothing holds it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _check(_libc.unshare(_CLONE_NEWNET))
    made = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        ip("link", "set", "lo", "up")
        _check(_libc.setns(home, _CLONE_NEWNET))
        yield made
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(made)
        os.close(home)


def ip(*arguments: str, pass_fd: int | None = None) -> None:
    """ip(8) in the namespace where the thread is."""
    descriptors = () if pass_fd is None else (pass_fd,)
    subprocess.run(["ip", *arguments], check=True, pass_fds=descriptors)
