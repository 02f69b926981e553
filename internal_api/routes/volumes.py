"""Changes of volumes."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from internal_api import outcome, volume_change
from internal_api.caller import Caller, Signed, ThisNode
from internal_api.node import Node
from internal_api.volume_change import Begun
from terrace.api.volume import VolumeAttach, VolumeCreate, VolumeResize, volume_view
from terrace.engine.waiters import is_live
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import volumes

router = APIRouter(prefix="/internal/v1/volumes", tags=["volumes"])


@router.post("", summary="Create a volume")
async def create(caller: Signed, node: ThisNode) -> Response:
    """201 when made, 202 when not yet."""
    body = VolumeCreate.model_validate_json(caller.body)
    return await _answer(node, caller, await volume_change.begin_create(node.host, caller, body), 201)


@router.delete("/{ref}", summary="Delete a volume")
async def delete(ref: str, caller: Signed, node: ThisNode) -> Response:
    """204 when gone, 202 when not yet."""
    return await _answer(node, caller, await volume_change.begin_delete(node.host, caller, ref), 204)


@router.post("/{ref}/actions/attach", summary="Plug a volume into a VM")
async def attach(ref: str, caller: Signed, node: ThisNode) -> Response:
    """200 when done, 202 when not yet."""
    body = VolumeAttach.model_validate_json(caller.body)
    return await _answer(node, caller, await volume_change.begin_attach(node.host, caller, ref, body), 200)


@router.post("/{ref}/actions/detach", summary="Unplug a volume")
async def detach(ref: str, caller: Signed, node: ThisNode) -> Response:
    """200 when done, 202 when not yet."""
    return await _answer(node, caller, await volume_change.begin_detach(node.host, caller, ref), 200)


@router.post("/{ref}/actions/resize", summary="Grow a volume")
async def resize(ref: str, caller: Signed, node: ThisNode) -> Response:
    """200 when done, 202 when not yet."""
    body = VolumeResize.model_validate_json(caller.body)
    return await _answer(node, caller, await volume_change.begin_resize(node.host, caller, ref, body.size_gib), 200)


async def _answer(node: Node, caller: Caller, begun: Begun, done_status: int) -> Response:
    operation = begun.operation
    if operation is not None:
        operation = await outcome.wait_for(node, caller, operation, inserted=begun.inserted)
    live = operation is not None and is_live(operation)
    if done_status == 204 and not live:
        return Response(status_code=204)
    async with node.host.pool.acquire() as conn:
        view = await volumes.find_view(conn, caller.identity.project_id, begun.volume_id)
    if view is None:
        if done_status == 204:
            return Response(status_code=204)
        raise NotFound("volume", begun.volume_id)
    if live:
        assert operation is not None
        return json_response(volume_view(view), 202, outcome.location(operation))
    headers = {"Location": f"/api/v1/volumes/{begun.volume_id}"} if done_status == 201 else {}
    return json_response(volume_view(view), done_status, headers)
