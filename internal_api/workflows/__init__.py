"""One file per operation; this table says which there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from internal_api.workflows import (
    capture_image,
    clean_pool,
    create_vm,
    delete_vm,
    import_image,
    power,
    remove_image,
    snapshots,
    volumes,
)
from terrace.engine.step import Workflow

if TYPE_CHECKING:
    from internal_api.host import Host

STEP_NAMES: Final[Mapping[str, list[str]]] = {
    create_vm.KIND: create_vm.STEP_NAMES,
    delete_vm.KIND: delete_vm.STEP_NAMES,
    import_image.KIND: import_image.STEP_NAMES,
    remove_image.KIND: remove_image.STEP_NAMES,
    capture_image.KIND: capture_image.STEP_NAMES,
    clean_pool.KIND: clean_pool.STEP_NAMES,
    **power.STEP_NAMES,
    **volumes.STEP_NAMES,
    **snapshots.STEP_NAMES,
}


def workflows(host: Host) -> dict[str, Workflow[Any]]:
    """Every kind of operation that this node's worker can carry out."""
    known: list[Workflow[Any]] = [
        create_vm.workflow(host),
        delete_vm.workflow(host),
        import_image.workflow(host),
        remove_image.workflow(host),
        capture_image.workflow(host),
        clean_pool.workflow(host),
        *power.workflows(host),
        *volumes.workflows(host),
        *snapshots.workflows(host),
    ]
    return {workflow.kind: workflow for workflow in known}
