"""Faults that tests inject into the fake drivers, by constructor or, across processes, by files."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from terrace.errors import Permanent, Transient

CALLS_KEPT = 1000


class Faults:
    """What goes wrong before and after which call.

    A fault is named ``before-<method>`` or ``after-<method>``; its value is ``transient`` (also
    ``transient 2``: only twice), ``permanent``, ``sleep 0.5`` or ``kill`` (SIGKILL to this process). Files
    of these names in ``folder`` say the same, and can be put there while the process runs. A fault named
    ``deaf`` (any value) makes guests ignore the ACPI button and keep disks that are to be unplugged.
    """

    def __init__(self, folder: Path | None = None, faults: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self.faults = dict(faults or {})
        self.calls: deque[str] = deque(maxlen=CALLS_KEPT)

    @asynccontextmanager
    async def around(self, method: str) -> AsyncIterator[None]:
        """The fault before, the call, the fault after."""
        self.calls.append(method)
        await self._strike(f"before-{method}")
        yield
        await self._strike(f"after-{method}")

    def are_set(self, name: str) -> bool:
        """Whether there is a fault of this name."""
        return (self.faults.get(name) or self._read(name)) is not None

    async def _strike(self, name: str) -> None:
        fault = self.faults.get(name) or self._read(name)
        if fault is None:
            return
        kind, _, amount = fault.partition(" ")
        match kind:
            case "transient":
                if amount:
                    self._count_down(name, int(amount))
                raise Transient("service_unavailable", "Injected fault.", internal=name)
            case "permanent":
                raise Permanent("operation_failed", "Injected fault.", internal=name)
            case "sleep":
                await asyncio.sleep(float(amount))
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                raise ValueError(f"unknown fault {fault!r}")

    def _read(self, name: str) -> str | None:
        if self._folder is None:
            return None
        try:
            return (self._folder / name).read_text().strip()
        except FileNotFoundError:
            return None

    def _count_down(self, name: str, left: int) -> None:
        if name in self.faults:
            if left > 1:
                self.faults[name] = f"transient {left - 1}"
            else:
                del self.faults[name]
        elif self._folder is not None:
            path = self._folder / name
            if left > 1:
                path.write_text(f"transient {left - 1}")
            else:
                path.unlink()
