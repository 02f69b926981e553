"""VM states, and which actions they allow: one table for both tiers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class VmStatus(StrEnum):
    """What is known of a VM; ``unknown`` while its node is not seen."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REBOOTING = "rebooting"
    CRASHED = "crashed"
    RESCUE = "rescue"
    MIGRATING = "migrating"
    REBUILDING = "rebuilding"
    DELETING = "deleting"
    ERROR = "error"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What ``POST /api/v1/vms/{ref}/actions/{action}`` offers."""

    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    RESET = "reset"
    POWEROFF = "poweroff"


_UP = frozenset({VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.REBOOTING, VmStatus.STOPPING})
_DOWN = frozenset({VmStatus.STOPPED, VmStatus.CRASHED, VmStatus.ERROR})

# From which states (without a live operation) an action may begin.
ALLOWED_FROM: Final[Mapping[Action, frozenset[VmStatus]]] = {
    Action.START: _DOWN | {VmStatus.PAUSED, VmStatus.STARTING},
    Action.STOP: _UP | {VmStatus.STARTING},
    Action.REBOOT: _UP,
    Action.RESET: _UP,
    Action.POWEROFF: _UP | {VmStatus.STARTING, VmStatus.CRASHED, VmStatus.ERROR},
}

# In which states an action is already true: repeating it is success.
ALREADY: Final[Mapping[Action, frozenset[VmStatus]]] = {
    Action.START: frozenset({VmStatus.RUNNING}),
    Action.STOP: frozenset({VmStatus.STOPPED}),
    Action.REBOOT: frozenset(),
    Action.RESET: frozenset(),
    Action.POWEROFF: frozenset({VmStatus.STOPPED}),
}

# What a VM is while the action's operation is live, and what its owner wants from then on.
DURING: Final[Mapping[Action, VmStatus | None]] = {
    Action.START: VmStatus.STARTING,
    Action.STOP: VmStatus.STOPPING,
    Action.REBOOT: VmStatus.REBOOTING,
    Action.RESET: None,
    Action.POWEROFF: VmStatus.STOPPING,
}
DESIRED: Final[Mapping[Action, str]] = {
    Action.START: "running",
    Action.STOP: "stopped",
    Action.REBOOT: "running",
    Action.RESET: "running",
    Action.POWEROFF: "stopped",
}

# Live operations that a more drastic one replaces.
SUPERSEDED_BY: Final[Mapping[str, frozenset[str]]] = {
    "vm_poweroff": frozenset({"vm_stop", "vm_reboot"}),
    "vm_delete": frozenset({"vm_stop", "vm_reboot"}),
}


def allowed_actions(status: VmStatus) -> list[str]:
    """Actions that a VM in this state takes, for the text of a refusal."""
    return [str(action) for action, states in ALLOWED_FROM.items() if status in states]
