"""Guests that a process may have left frozen when it ended: thawed once, when the node starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from internal_api.drivers.protocols import DomainState
from terrace import log
from terrace.errors import TerraceError
from terrace.problems import DATABASE_ERRORS
from terrace.store import operations, vms

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_FREEZING: Final = ("snapshot_create", "image_capture")
_SINCE_S: Final = 3600.0
_TIMEOUT_S: Final = 10.0


async def thaw_after_restart(host: Host) -> None:
    """Thaw the running guests whose disks were copied within the last hour; thawing what runs does nothing."""
    try:
        async with host.pool.acquire() as conn:
            recent = await operations.list_recent_vms(conn, host.node, _FREEZING, _SINCE_S)
            found = [await vms.find(conn, vm_id) for vm_id in recent]
        for vm in found:
            if vm is not None and await host.hypervisor.find_state(vm.uuid) is DomainState.RUNNING:
                await host.hypervisor.thaw(vm.uuid, _TIMEOUT_S)
    except (*DATABASE_ERRORS, TerraceError) as exc:
        _log.warning("thaw_failed", error=repr(exc))
