"""A keyring file of cephx: who may speak to the cluster, and with which key.

https://docs.ceph.com/en/latest/rados/configuration/auth-config-ref/#keys
"""

from __future__ import annotations

from pathlib import Path

from internal_api.drivers.pool_files import write_whole
from terrace.errors import Permanent


def read_key(path: Path, user: str) -> str:
    """The key of ``client.<user>``, base64; raises Permanent when the file lacks it."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise _unusable(user, str(error)) from error
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line.strip("[]")
        name, _, value = line.partition("=")
        if section == f"client.{user}" and name.strip() == "key":
            return value.strip()
    raise _unusable(user, f"{path} has no key of client.{user}")


def ensure_keyring(path: Path, user: str, key: str) -> None:
    """Write a keyring that only its owner can read, unless it has this key already; raises OSError."""
    try:
        if read_key(path, user) == key and path.stat().st_mode & 0o077 == 0:
            return
    except Permanent:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"[client.{user}]\n\tkey = {key}\n".encode(), mode=0o600)


def _unusable(user: str, internal: str) -> Permanent:
    return Permanent("operation_failed", f"The keyring of Ceph's user client.{user} can't be used.", internal=internal)
