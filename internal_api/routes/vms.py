"""Changes of VMs."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from internal_api import change, outcome
from internal_api.caller import Caller, Signed, ThisNode
from internal_api.claim import claim_vm
from internal_api.metrics import CLAIMS
from internal_api.node import Node
from terrace.api.vm import VmCreate, validate_action_body, vm_view
from terrace.engine.waiters import is_live
from terrace.errors import NotFound, Refused, TerraceError
from terrace.http import json_response
from terrace.store import operations, vms
from terrace.store.operations import Operation
from terrace.types import VmId
from terrace.vm_state import Action

router = APIRouter(prefix="/internal/v1/vms", tags=["vms"])


@router.post("", summary="Claim and create a VM on this node")
async def create(caller: Signed, node: ThisNode) -> Response:
    """201 when started, 202 when not yet, 425 with ``X-Terrace-Refused`` when another node should try."""
    body = VmCreate.model_validate_json(caller.body)
    try:
        claimed = await claim_vm(node.host, caller.identity, body, caller.key, caller.request_id)
    except Refused as refused:
        CLAIMS.labels(refused.reason).inc()
        raise
    CLAIMS.labels("repeated" if claimed.repeated else "accepted").inc()
    return await _answer(node, caller, claimed.vm_id, claimed.operation, inserted=not claimed.repeated, done_status=201)


@router.post("/{ref}/actions/{action}", summary="Begin an action on a VM")
async def act(ref: str, action: Action, caller: Signed, node: ThisNode) -> Response:
    """200 when done, 202 when not yet."""
    try:
        raw = orjson.loads(caller.body) if caller.body else None
    except orjson.JSONDecodeError as exc:
        raise TerraceError("bad_json", f"The body is not valid JSON: {exc}.") from None
    body = validate_action_body(raw)
    begun = await change.begin_action(node.host, caller.identity, ref, action, body, caller.key, caller.request_id)
    return await _answer_begun(node, caller, ref, begun, done_status=200)


@router.delete("/{ref}", summary="Begin to delete a VM")
async def delete(ref: str, caller: Signed, node: ThisNode) -> Response:
    """204 when gone, 202 when not yet."""
    begun = await change.begin_delete(node.host, caller.identity, ref, caller.key, caller.request_id)
    return await _answer_begun(node, caller, ref, begun, done_status=204)


async def _answer_begun(node: Node, caller: Caller, ref: str, begun: change.Begun, *, done_status: int) -> Response:
    if begun.superseded is not None:
        node.interrupted(begun.superseded)
    if begun.vm_id is None:
        raise NotFound("VM", ref)
    return await _answer(node, caller, begun.vm_id, begun.operation, inserted=begun.inserted, done_status=done_status)


async def _answer(
    node: Node, caller: Caller, vm_id: VmId, operation: Operation | None, *, inserted: bool, done_status: int
) -> Response:
    """Wait for the operation as long as the client wants, and say how far it came."""
    if operation is not None:
        operation = await outcome.wait_for(node, caller, operation, inserted=inserted)
    live = operation is not None and is_live(operation)
    if done_status == 204 and not live:
        return Response(status_code=204)
    async with node.host.pool.acquire() as conn:
        view = await vms.find_view(conn, caller.identity.project_id, vm_id)
        over = await operations.list_ended(conn, [operation.id]) if view is None and operation is not None else []
    if view is None:
        if over:
            outcome.raise_if_failed(over[0])
            if done_status == 204:
                return Response(status_code=204)
        raise NotFound("VM", vm_id)
    if live:
        assert operation is not None
        return json_response(vm_view(view), 202, outcome.location(operation))
    headers = {"Location": f"/api/v1/vms/{vm_id}"} if done_status == 201 else {}
    return json_response(vm_view(view), done_status, headers)
