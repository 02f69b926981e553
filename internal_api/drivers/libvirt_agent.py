"""The QEMU guest agent, through libvirt (https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt
import libvirt_qemu

STATUS_TIMEOUT_S = 3.0


def ping(domain: Any, timeout_s: float) -> bool:
    """Whether the agent answers within ``timeout_s``, rounded up to whole seconds as libvirt counts."""
    return _ask(domain, {"execute": "guest-ping"}, timeout_s) is not None


def shutdown(domain: Any, timeout_s: float, *, reboot: bool) -> bool:
    """Ask for a power off (or reboot) and return; false when no agent answers or it refuses.

    ``guest-shutdown`` has no answer when it succeeds, and libvirt's own call would hold its thread until
    the guest is off, for up to a minute: hence a ping first, and then a second of silence means yes.
    """
    if not ping(domain, timeout_s):
        return False
    mode = "reboot" if reboot else "powerdown"
    command = {"execute": "guest-shutdown", "arguments": {"mode": mode}}
    try:
        libvirt_qemu.qemuAgentCommand(domain, json.dumps(command), 1, 0)
    except libvirt.libvirtError as error:
        silent = error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
        return silent or not domain.isActive()
    return True


def addresses(domain: Any, timeout_s: float) -> Mapping[str, Sequence[str]]:
    """MAC (lower case) → IPv4 addresses, less loopback; empty when no agent answers."""
    answer = _ask(domain, {"execute": "guest-network-get-interfaces"}, timeout_s)
    return {} if answer is None else read_addresses(answer)


def read_addresses(answer: object) -> Mapping[str, Sequence[str]]:
    """The guest is not trusted: whatever does not look like an answer is left out."""
    interfaces = answer.get("return") if isinstance(answer, dict) else None
    found: dict[str, list[str]] = {}
    for interface in interfaces if isinstance(interfaces, list) else ():
        if not isinstance(interface, dict) or interface.get("name") == "lo":
            continue
        mac, rows = interface.get("hardware-address"), interface.get("ip-addresses")
        if not isinstance(mac, str) or not isinstance(rows, list):
            continue
        for row in rows:
            if isinstance(row, dict) and row.get("ip-address-type") == "ipv4":
                address = row.get("ip-address")
                if isinstance(address, str):
                    found.setdefault(mac.lower(), []).append(address)
    return found


def freeze(domain: Any, timeout_s: float) -> bool | None:
    """Whether the file systems are frozen, now or since before; None when nobody knows."""
    match _ask(domain, {"execute": "guest-fsfreeze-status"}, min(timeout_s, STATUS_TIMEOUT_S)):
        case {"return": "frozen"}:
            return True
        case {"return": "thawed"}:
            pass
        case _:
            return False
    match _ask(domain, {"execute": "guest-fsfreeze-freeze"}, timeout_s):
        case {"return": int(count)} if count > 0:
            return True
        case _:  # the agent may be frozen now with nothing to freeze, or go on freezing until it is done
            return False if thaw(domain, STATUS_TIMEOUT_S) else None


def thaw(domain: Any, timeout_s: float) -> bool:
    """Whether the agent says that nothing is frozen any more."""
    return _ask(domain, {"execute": "guest-fsfreeze-thaw"}, timeout_s) is not None


def _ask(domain: Any, command: Mapping[str, object], timeout_s: float) -> object | None:
    try:
        text = libvirt_qemu.qemuAgentCommand(domain, json.dumps(command), math.ceil(timeout_s), 0)
        answer: object = json.loads(text) if text else {}
    # not connected, no answer, domain off, or nonsense (SystemError: libvirt quotes what is not even text)
    except (libvirt.libvirtError, ValueError, SystemError):
        return None
    return answer
