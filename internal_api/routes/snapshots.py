"""Changes of snapshots."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from internal_api import outcome, snapshot_change
from internal_api.caller import Caller, Signed, ThisNode
from internal_api.node import Node
from internal_api.snapshot_change import Begun
from terrace.api.snapshot import SnapshotCreate, SnapshotRestore, snapshot_view
from terrace.engine.waiters import is_live
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import snapshots

router = APIRouter(prefix="/internal/v1/vms/{vm}/snapshots", tags=["snapshots"])


@router.post("", summary="Take a snapshot of a VM")
async def create(vm: str, caller: Signed, node: ThisNode) -> Response:
    """201 when taken, 202 when not yet."""
    body = SnapshotCreate.model_validate_json(caller.body)
    return await _answer(node, caller, await snapshot_change.begin_create(node.host, caller, vm, body), 201)


@router.post("/{ref}/actions/restore", summary="Restore a snapshot")
async def restore(vm: str, ref: str, caller: Signed, node: ThisNode) -> Response:
    """200 when done, 202 when not yet."""
    body = SnapshotRestore.model_validate(orjson.loads(caller.body) if caller.body else {})
    return await _answer(node, caller, await snapshot_change.begin_restore(node.host, caller, vm, ref, body), 200)


@router.delete("/{ref}", summary="Delete a snapshot")
async def delete(vm: str, ref: str, caller: Signed, node: ThisNode) -> Response:
    """204 when gone, 202 when not yet."""
    return await _answer(node, caller, await snapshot_change.begin_delete(node.host, caller, vm, ref), 204)


async def _answer(node: Node, caller: Caller, begun: Begun, done_status: int) -> Response:
    operation = await outcome.wait_for(node, caller, begun.operation, inserted=begun.inserted)
    live = is_live(operation)
    if done_status == 204 and not live:
        return Response(status_code=204)
    assert operation.vm_id is not None
    assert operation.snapshot_id is not None
    async with node.host.pool.acquire() as conn:
        view = await snapshots.find_view(conn, operation.vm_id, operation.snapshot_id)
    if view is None:
        if done_status == 204:
            return Response(status_code=204)
        raise NotFound("snapshot", operation.snapshot_id)
    if live:
        return json_response(snapshot_view(view), 202, outcome.location(operation))
    headers = {}
    if done_status == 201:
        headers["Location"] = f"/api/v1/vms/{operation.vm_id}/snapshots/{operation.snapshot_id}"
    return json_response(snapshot_view(view), done_status, headers)
