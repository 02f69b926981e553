"""Operations: what became of a change."""

from __future__ import annotations

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from terrace import cursor as cursors
from terrace.api.operation import OperationOut, operation_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import operations, vms
from terrace.types import MAX_ID, find_id

router = APIRouter(prefix="/api/v1/operations", tags=["operations"], route_class=PublicRoute)


@router.get("", summary="List operations", response_model=list[OperationOut], responses=problems(400, 404, 422))
async def list_(
    request: Request,
    who: Caller,
    edge: ThisEdge,
    limit: Limit = 100,
    cursor: Cursor = None,
    vm: str | None = Query(default=None, min_length=1, max_length=63, description="Of this VM, by id or name"),
    state: str | None = Query(
        default=None,
        pattern="^(pending|running|undoing|succeeded|failed|stuck|superseded)$",
        description="In this state",
    ),
) -> Response:
    """A page of the project's operations, the newest first. Those of a deleted VM are found by its id."""
    before = cursors.decode(cursor, start=MAX_ID)
    async with edge.pool.acquire() as conn:
        vm_id = parse_ref("VM", vm) if vm is not None else None
        if isinstance(vm_id, str):
            found_vm = await vms.find_id(conn, who.project_id, vm_id)
            if found_vm is None:
                raise NotFound("VM", vm)
            vm_id = found_vm[0]
        found = await operations.list_of_project(
            conn, who.project_id, before=before, limit=limit + 1, vm_id=vm_id, state=state
        )
        events = await operations.list_events(conn, [op.id for op in found])
    return page(request, [operation_view(op, events[op.id]) for op in found], limit, precise=True)


@router.get("/{ref}", summary="Get an operation", response_model=OperationOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One operation with its steps and their times."""
    number = find_id(ref)
    async with edge.pool.acquire() as conn:
        op = await operations.find(conn, who.project_id, number) if number is not None else None
        if op is None:
            raise NotFound("operation", ref)
        events = await operations.list_events(conn, [op.id])
    return json_response(operation_view(op, events[op.id]), precise=True)
