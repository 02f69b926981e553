"""Files that the stack writes: whole or not at all, and as private as they need to be."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replaces a file in one step; makes its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w") as file:
        file.write(text)
    new.replace(path)


def ensure_secret(path: Path) -> str:
    """A random secret that stays the same once it is made. Without a final newline: it is read as it is."""
    if not path.exists():
        write(path, secrets.token_hex(24), 0o600)
    return path.read_text()


def revision(paths: Iterable[Path]) -> str:
    """A short name for the content of these files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(os.fsencode(path) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def give_to_caller(path: Path) -> None:
    """Under sudo, hands a private file to the person who called it."""
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", "-1")))
