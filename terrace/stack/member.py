"""A member: one process that the supervisor keeps running, or one command that it runs once."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal


class State(StrEnum):
    WAITING = "waiting"  # for members it depends on
    STARTING = "starting"
    READY = "ready"
    DONE = "done"  # a command that ran to its end
    BACKOFF = "backoff"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_well(self) -> bool:
        return self in (State.READY, State.DONE)


@dataclass(frozen=True)
class Probe:
    """One sign of readiness. `target`: host:port, a URL answering 200, a socket's path, or a command."""

    kind: Literal["tcp", "http", "unix", "command"]
    target: str | tuple[str, ...]
    timeout_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Member:
    """What to run and how to know it works. Equal definitions mean that nothing needs a restart.

    `once`: a command that ends; its dependents wait for its success.
    `revision`: changes when the files it was made from change (configuration, code).
    `kills_group`: its children die with it; not so for libvirtd, whose guests live on.
    """

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    ready: tuple[Probe, ...] = ()
    once: bool = False
    ports: tuple[int, ...] = ()
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 5.0
    start_timeout_s: float = 30.0
    kills_group: bool = True
    revision: str = ""


def to_json(members: Iterable[Member]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(member) for member in members]


def from_json(items: list[dict[str, Any]]) -> list[Member]:
    return [_member(item) for item in items]


def _member(item: dict[str, Any]) -> Member:
    probes = tuple(
        Probe(
            probe["kind"],
            target if isinstance(target := probe["target"], str) else tuple(target),
            probe["timeout_s"],
        )
        for probe in item["ready"]
    )
    lists = {name: tuple(item[name]) for name in ("command", "needs", "ports")}
    return Member(**{**item, **lists, "ready": probes})


def load(path: Path) -> list[Member]:
    return from_json(json.loads(path.read_text()))
