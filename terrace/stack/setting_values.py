"""Readers of single setting values: text in, typed value out, one sentence when it can't be used."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from terrace.stack.errors import SettingsError

# hidden from the hypervisors, which mount directories of their own over these
HIDDEN_FROM_HYPERVISORS = (
    "/run",
    "/etc/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
)


def refuse(name: str, text: str, wanted: str) -> SettingsError:
    return SettingsError(f"{name} must be {wanted}, not {text!r}.")


def whole(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high:
            return int(text)
        raise refuse(name, text, f"a whole number from {low} to {high}")

    return read


def ratio(name: str, text: str) -> float:
    """An overcommit ratio: 1 sells exactly what is there, 4 sells it four times."""
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?", text) and 0.1 <= float(text) <= 100:
        return float(text)
    raise refuse(name, text, "a number from 0.1 to 100")


def one_of(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text in choices:
            return text
        raise refuse(name, text, "one of " + ", ".join(choices))

    return read


def interface(name: str, text: str) -> str:
    """A Linux network interface name: at most 15 bytes (IFNAMSIZ), and fit for an nft table's name."""
    if re.fullmatch(r"[a-z][a-z0-9_]{0,14}", text):
        return text
    raise refuse(name, text, "an interface name (1 to 15 lower-case letters, digits or _, a letter first)")


def namespace(name: str, text: str) -> str:
    if text == "" or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        return text
    raise refuse(name, text, "empty, or a network namespace name of letters, digits, '_', '.' or '-'")


def ipv4(name: str, text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise refuse(name, text, "an IPv4 address") from None


def ipv4_list(name: str, text: str) -> tuple[str, ...]:
    """Addresses separated by commas or blanks; nothing means that they are to be detected."""
    return tuple(ipv4(name, part) for part in re.split(r"[,\s]+", text) if part)


def subnet(name: str, text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise refuse(name, text, "an IPv4 network such as 10.77.0.0/16") from None
    if not 8 <= network.prefixlen <= 28:
        raise refuse(name, text, "an IPv4 network of size /8 to /28")
    return network


def directory(name: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or path == Path("/") or "\n" in text:
        raise refuse(name, text, "the absolute path of a directory for this stack alone")
    path = path.resolve()
    for hidden in HIDDEN_FROM_HYPERVISORS:
        if path.is_relative_to(hidden):
            raise refuse(name, text, f"a directory outside {hidden}, which the hypervisors can't see")
    return path
