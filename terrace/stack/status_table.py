"""The table of `scripts/stack status`."""

import time
from collections.abc import Sequence

from terrace.stack.control import MemberStatus

HEAD = ("NAME", "STATE", "PID", "RESTARTS", "FOR", "PORTS", "")


def table(members: Sequence[MemberStatus]) -> str:
    rows = [HEAD, *(_row(member) for member in members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(member: MemberStatus) -> tuple[str, ...]:
    ports = ",".join(map(str, member.ports)) or "-"
    pid = "-" if member.pid is None else str(member.pid)
    return (
        member.name,
        member.state,
        pid,
        str(member.restarts),
        _span(time.time() - member.since),
        ports,
        member.reason,
    )


def _span(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 100:
        return f"{max(0, seconds):.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.0f} h"
