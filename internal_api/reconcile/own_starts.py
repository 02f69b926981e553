"""VMs that their node has found off when it came up, although they are wanted running."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internal_api import change
from terrace import log
from terrace.store import operations
from terrace.store.vms import OwnedVm
from terrace.types import OperationId, VmId

if TYPE_CHECKING:
    from internal_api.host import Host
    from terrace.engine.worker import Worker

_log = log.get(__name__)
_LONGEST_PAUSE_S: Final = 600.0


@dataclass(slots=True)
class _Attempts:
    """How often a VM was to be started, and when it may be again."""

    count: int = 0
    newest: OperationId | None = None
    next_at: float = 0.0


class OwnStarts:
    """Starts each of them as soon as no operation stands in the way, as often as it takes, at growing intervals."""

    def __init__(self, host: Host, worker: Worker) -> None:
        self._host = host
        self._worker = worker
        self._wanted: dict[VmId, _Attempts] = {}

    def want(self, vm: OwnedVm) -> None:
        """Start this VM from now on, if that is wanted of it."""
        if _is_wanted(vm):
            self._wanted.setdefault(vm.id, _Attempts())

    def forget(self, vm: OwnedVm) -> None:
        """This VM has started; what it does from now on is its own affair."""
        self._wanted.pop(vm.id, None)

    def keep_to(self, owned: Sequence[OwnedVm]) -> None:
        """Forget VMs that are gone, or are wanted no longer."""
        still = {vm.id for vm in owned if _is_wanted(vm)}
        self._wanted = {vm_id: attempts for vm_id, attempts in self._wanted.items() if vm_id in still}

    async def begin(self, vm: OwnedVm) -> bool:
        """Begin to start a VM that is off, if that is its turn; whether it was."""
        attempts = self._wanted.get(vm.id)
        if attempts is None or time.monotonic() < attempts.next_at:
            return False
        if attempts.newest is not None:
            async with self._host.pool.acquire() as conn:
                earlier = await operations.find(conn, vm.project_id, attempts.newest)
            if earlier is not None and earlier.state == "succeeded":  # and it went off again in between
                self.forget(vm)
                return False
        operation = await change.begin_own_start(self._host, vm)
        if operation is None:
            return False
        pause_s = min(self._host.settings.full_pass_s * 2**attempts.count, _LONGEST_PAUSE_S)
        attempts.count += 1
        attempts.newest = operation.id
        attempts.next_at = time.monotonic() + pause_s
        _log.info("vm_start_after_boot", vm=vm.id, op=operation.id, attempt=attempts.count)
        self._worker.submit(operation)
        return True


def _is_wanted(vm: OwnedVm) -> bool:
    return vm.desired == "running" and vm.status != "error"
