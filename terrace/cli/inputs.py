"""Turns what a person writes on the command line into fields of the API; raises Failure on mistakes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from terrace.cli.failures import usage
from terrace.cli.reply import Json

_SIZE = re.compile(r"([1-9][0-9]*)([MGT]?)(i?B)?", re.IGNORECASE)
_DISK_UNITS = {"": 1, "G": 1, "T": 1024}
_PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ +\S")
_VOLUME = re.compile(r"([^:]+):([^:]+)(:delete)?")
_MODE = re.compile(r"[0-7]{3,4}")


def ram_mib(value: str) -> int:
    """1024, 1024M or 1G as MiB."""
    return _size(value, "--ram", {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024})


def disk_gib(value: str) -> int:
    """10, 10G or 1T as GiB."""
    return _size(value, "--disk", _DISK_UNITS)


def volume_gib(value: str, option: str) -> int:
    """A volume's size, as ``disk_gib`` reads it."""
    return _size(value, option, _DISK_UNITS)


def volume_entry(value: str) -> Json:
    """``NAME:SIZE[:delete]`` as an entry of ``volumes``."""
    match = _VOLUME.fullmatch(value)
    if match is None:
        raise usage(
            f"--volume {value} is not NAME:SIZE[:delete].",
            "For example --volume data:20, or --volume scratch:5G:delete to have it deleted with the VM.",
        )
    entry: Json = {"name": match[1], "size_gib": volume_gib(match[2], f"In --volume {value},")}
    return {**entry, "delete_with_vm": True} if match[3] else entry


def labels(values: list[str]) -> dict[str, str]:
    """Each ``key=value``."""
    pairs = [value.partition("=") for value in values]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise usage("A --label is key=value.", "For example --label env=test")
    return {key: value for key, _, value in pairs}


def file_entry(value: str) -> Json:
    """``SRC:DEST[:MODE]`` as an entry of ``files``; DEST is absolute, the content text."""
    source, separator, target = value.partition(":/")
    path, _, mode = f"/{target}".rpartition(":")
    if not _MODE.fullmatch(mode):
        path, mode = f"/{target}", ""
    if not (source and separator and target):
        raise usage(f"--file {value} is not SRC:DEST[:MODE].", "For example --file motd.txt:/etc/motd:0644")
    entry: Json = {"path": path, "content": read_text(Path(source), "--file")}
    return {**entry, "mode": mode.zfill(4)} if mode else entry


def public_key(value: str) -> str:
    """A --key: a public key, the content of a .pub file, or else the name of a stored key."""
    if _PUBLIC_KEY.match(value):
        return value
    path = Path(value).expanduser()
    if not (path.is_file() or "/" in value or value.endswith(".pub")):
        return value
    return public_key_in(read_text(path, "the key file"), str(path))


def public_key_in(content: str, source: str) -> str:
    """The public key in a file's content; refuses a private one before it leaves this machine."""
    if "PRIVATE KEY" in content:
        raise usage(f"{source} holds a private key, which was not sent.", f"Give {source}.pub instead.")
    lines = [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise usage(f"{source} holds {len(lines)} keys.", "Give a file with one public key.")
    return lines[0].strip()


def default_keys(identity: str | None) -> list[str]:
    """The public half of the key that ``vm ssh`` uses, when it lies beside it."""
    path = Path(f"{identity}.pub").expanduser()
    return [public_key(str(path))] if identity and path.is_file() else []


def read_text(path: Path, what: str) -> str:
    """The text of a file, or of stdin for ``-``."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"Cannot read {what} {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise usage(f"{what} {path} is not text in UTF-8.") from None


def _size(value: str, option: str, units: dict[str, int]) -> int:
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[2].upper() not in units:
        known = ", ".join(f"10{unit}" for unit in units)
        raise usage(f"{option} {value} is not a size.", f"A size is a whole number: {known}.")
    return int(match[1]) * units[match[2].upper()]
