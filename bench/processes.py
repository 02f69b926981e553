"""CPU time and memory of the stack's processes, from /proc, by member."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (proc(5): state) on; None when it has ended."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def members_of(roots: Mapping[int, str]) -> dict[int, str]:
    """Every process with the member whose main process (``roots``: pid → name) is its nearest ancestor."""
    parents = {
        int(path.name): int(fields[1])
        for path in _PROC.iterdir()
        if path.name.isdigit() and (fields := _stat(int(path.name)))
    }
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            found[pid] = roots[ancestor]
    return found


def cpu_seconds(roots: Mapping[int, str]) -> dict[str, float]:
    """CPU time spent so far by each member: its processes, and those of their children that ended."""
    total: dict[str, float] = defaultdict(float)
    for pid, name in members_of(roots).items():
        if fields := _stat(pid):
            total[name] += sum(map(int, fields[11:15])) / _TICKS_PER_S  # utime, stime, cutime, cstime
    return total


def memory_mib(roots: Mapping[int, str]) -> dict[str, float]:
    """Proportional set size (shared pages split among their users) of each member."""
    total: dict[str, float] = defaultdict(float)
    for pid, name in members_of(roots).items():
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total[name] += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total
