"""What a Ceph cluster says about itself, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from terrace.stack.ceph_admin import connected
from terrace.stack.ceph_daemons import Daemons, resident_mib
from terrace.stack.ceph_settings import CephSettings
from terrace.stack.errors import StackError

# as Ceph has it where it speaks of itself
OK = "HEALTH_OK"
UNREACHABLE = "unreachable"
GIB = 1024**3


@dataclass(frozen=True)
class DaemonStatus:
    """One daemon; `pid` is None when it doesn't run. `role`: what the cluster makes of it."""

    name: str
    address: str
    pid: int | None
    rss_mib: int
    role: str


@dataclass(frozen=True)
class ClusterStatus:
    """`health` is Ceph's word, or `unreachable`; `reasons` are Ceph's sentences for it.

    `pgs` counts placement groups by state; Ceph's own words lag a second or two behind.
    """

    health: str
    reasons: tuple[str, ...]
    daemons: tuple[DaemonStatus, ...]
    pgs: dict[str, int]
    used_bytes: int
    total_bytes: int

    @property
    def is_well(self) -> bool:
        return self.health == OK and all(daemon.pid is not None for daemon in self.daemons)

    @property
    def is_clean(self) -> bool:
        """Whether all data has all its copies."""
        return set(self.pgs) == {"active+clean"}


def read(settings: CephSettings, timeout_s: int = 10) -> ClusterStatus:
    """Never raises: a cluster that doesn't answer is `unreachable`."""
    said: dict[str, Any] = {}
    osds: dict[str, Any] = {}
    health = UNREACHABLE
    reasons: tuple[str, ...] = ()
    if any(name in settings.mon_daemons for name in Daemons(settings).living()):
        try:
            with connected(settings, timeout_s) as ceph:
                said, osds = ceph.ask("status"), ceph.osds()
            health, reasons = said["health"]["status"], _reasons(said)
        except StackError as error:
            reasons = (str(error),)
    numbers = said.get("pgmap", {})
    return ClusterStatus(
        health=health,
        reasons=reasons,
        daemons=_daemons(settings, said, osds),
        pgs=pgs(said),
        used_bytes=numbers.get("bytes_used", 0),
        total_bytes=numbers.get("bytes_total", 0),
    )


def pgs(said: dict[str, Any]) -> dict[str, int]:
    """Placement groups by state, from Ceph's answer to `status`."""
    return {state["state_name"]: state["count"] for state in said.get("pgmap", {}).get("pgs_by_state", ())}


def _reasons(said: dict[str, Any]) -> tuple[str, ...]:
    return tuple(check["summary"]["message"] for check in said["health"]["checks"].values())


def _daemons(settings: CephSettings, said: dict[str, Any], osds: dict[str, Any]) -> tuple[DaemonStatus, ...]:
    living = Daemons(settings).living()
    quorum = {f"mon.{name}" for name in said.get("quorum_names", ())}
    found = []
    for name in settings.daemons:
        process = living.get(name)
        match name.partition(".")[0]:
            case "mon":
                role = "in quorum" if name in quorum else "not in quorum"
            case "mgr":
                role = "active" if said.get("mgrmap", {}).get("available") else "not active"
            case _:
                osd = osds.get(name, {})
                role = f"{'up' if osd.get('up') else 'down'}, {'in' if osd.get('in') else 'out'}"
        found.append(
            DaemonStatus(
                name=name,
                address=settings.address(name),
                pid=process.pid if process else None,
                rss_mib=resident_mib(process) if process else 0,
                role=role if said else "unknown",
            )
        )
    return tuple(found)


def text(settings: CephSettings, status: ClusterStatus) -> str:
    """The answer of `scripts/ceph status`."""
    lines = [f"{status.health}  ({settings.store}, {settings.home})", *(f"  {reason}" for reason in status.reasons)]
    rows = [("NAME", "ADDRESS", "PID", "MIB", "ROLE")]
    for one in status.daemons:
        pid, size = ("-", "-") if one.pid is None else (str(one.pid), str(one.rss_mib))
        rows.append((one.name, one.address, pid, size, one.role if one.pid is not None else f"DEAD ({one.role})"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if status.pgs:
        lines.append("placement groups: " + ", ".join(f"{count} {state}" for state, count in status.pgs.items()))
        lines.append(f"used: {status.used_bytes / GIB:.1f} of {status.total_bytes / GIB:.1f} GiB, copies counted")
    return "\n".join(lines)
