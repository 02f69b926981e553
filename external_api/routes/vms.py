"""VMs."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import Edge, ThisEdge
from external_api.forward import is_of_proxy
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from external_api.routes.prefer import IdempotencyKey, Prefer, accepted
from terrace import cursor as cursors
from terrace import labels
from terrace.api.vm import ActionBody, VmCreate, VmOut, vm_view
from terrace.errors import NotFound, TerraceError
from terrace.http import json_response
from terrace.store import nodes, vms
from terrace.types import Identity, VmId
from terrace.vm_state import Action, VmStatus

router = APIRouter(prefix="/api/v1/vms", tags=["vms"], route_class=PublicRoute)
_INTERNAL = "/internal/v1/vms"
_HINTS = 3  # how often a refused create is sent to a node that PostgreSQL says has room


@router.post(
    "",
    summary="Create a VM",
    status_code=201,
    response_model=VmOut,
    responses={**accepted(VmOut), **problems(400, 409, 413, 415, 422, 507)},
)
async def create(
    request: Request,
    body: VmCreate,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a VM and start it on a node that has room.

    Answers 201 when the VM has started, or 202 when that takes longer than the wait. The spellings
    `Name`, `RAM` (MiB), `CPU` and `Disk` (GiB, or with `G` or `T`) are understood, too.
    """
    content = orjson.dumps(body.model_dump(exclude_unset=True))
    response = await edge.forwarder.send(request, who, "POST", _INTERNAL, content)
    tried: list[str] = []
    while _was_placed_nowhere(response):
        # ask the truth who has room, and send it there by name
        async with edge.pool.acquire() as conn:
            node = await nodes.find_with_room(conn, body.cpu, body.ram_mib, body.all_disks_gib, tried)
            anyone = any(view.state != "down" for view in await nodes.list_views(conn))
        if node is None or len(tried) == _HINTS:
            if response.status_code == 503 and (tried or not anyone):
                return response  # it is not room that lacks, but nodes
            raise TerraceError("no_capacity", "No node has room for this VM now.")
        tried.append(node)
        response = await edge.forwarder.send(request, who, "POST", _INTERNAL, content, node=node)
    return response


def _was_placed_nowhere(response: Response) -> bool:
    """Every node that HAProxy tried refused, or HAProxy has none to try because all are drained or down."""
    return response.status_code == 425 or is_of_proxy(response)


@router.get("", summary="List VMs", response_model=list[VmOut], responses=problems(400, 422))
async def list_(
    request: Request,
    who: Caller,
    edge: ThisEdge,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: list[VmStatus] = Query(default=[], description="One of these states"),
    node: str | None = Query(default=None, pattern="^[a-z0-9-]{1,63}$", description="Owned by this node"),
    label: list[str] = Query(default=[], description="`key=value` or `key`; all must hold"),
) -> Response:
    """A page of the project's VMs on all nodes, in every state, by ascending id."""
    equal, present = labels.parse_selectors(label)
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        found = await vms.list_views(
            conn,
            who.project_id,
            after=after,
            limit=limit + 1,
            statuses=[str(wanted) for wanted in status],
            node=node,
            labels=equal,
            label_keys=present,
        )
    return page(request, [vm_view(vm) for vm in found], limit)


@router.get("/{ref}", summary="Get a VM", response_model=VmOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One VM by id or name."""
    wanted = parse_ref("VM", ref)
    async with edge.pool.acquire() as conn:
        vm = await vms.find_view(conn, who.project_id, wanted)
    if vm is None:
        raise NotFound("VM", ref)
    return json_response(vm_view(vm))


@router.delete(
    "/{ref}",
    summary="Delete a VM",
    status_code=204,
    response_class=Response,
    responses={**accepted(VmOut), **problems(400, 404, 409, 422)},
)
async def delete(
    ref: str,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Power the VM off and free its disk, address and name. 204 when it is gone."""
    wanted = parse_ref("VM", ref)
    node = await _owner(edge, who, wanted)
    return await edge.forwarder.send(request, who, "DELETE", f"{_INTERNAL}/{wanted}", node=node)


@router.post(
    "/{ref}/actions/{action}",
    summary="Start, stop, reboot, reset or power off a VM",
    response_model=VmOut,
    responses={**accepted(VmOut), **problems(400, 404, 409, 413, 415, 422)},
)
async def act(
    ref: str,
    action: Action,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    body: ActionBody | None = None,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """`stop` asks the guest agent, then presses the ACPI button, then cuts the power, and the operation's
    result says which one it took; `poweroff` and `reset` are immediate. An action that is already true
    is success. `poweroff` takes the place of a `stop` or `reboot` under way.
    """
    wanted = parse_ref("VM", ref)
    content = orjson.dumps(body.model_dump()) if body is not None else b""
    node = await _owner(edge, who, wanted)
    return await edge.forwarder.send(request, who, "POST", f"{_INTERNAL}/{wanted}/actions/{action}", content, node=node)


async def _owner(edge: Edge, who: Identity, ref: int | str) -> str | None:
    """The node that owns the VM: from Redis, from PostgreSQL when Redis does not know; None for no VM."""
    if isinstance(ref, int):
        node = await edge.placement.get(who.project_id, VmId(ref))
        if node is not None:
            return node
    async with edge.pool.acquire() as conn:
        found = await vms.find_id(conn, who.project_id, ref)
    if found is None:
        return None  # the owner's tier says so; a repeat of a finished DELETE is still known there
    await edge.placement.set(who.project_id, found[0], found[1])
    return found[1]
