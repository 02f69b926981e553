"""Volumes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import Edge, ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from external_api.routes.prefer import IdempotencyKey, Prefer, accepted
from terrace import cursor as cursors
from terrace.api.volume import VolumeAttach, VolumeCreate, VolumeOut, VolumeResize, volume_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import vms, volumes
from terrace.types import MAX_ID, Identity, find_id

router = APIRouter(prefix="/api/v1/volumes", tags=["volumes"], route_class=PublicRoute)
_INTERNAL = "/internal/v1/volumes"
_Status = Literal["creating", "available", "attaching", "in_use", "detaching", "deleting", "error"]


@router.post(
    "",
    summary="Create a volume",
    status_code=201,
    response_model=VolumeOut,
    responses={**accepted(VolumeOut), **problems(400, 409, 413, 415, 422, 507)},
)
async def create(
    request: Request,
    body: VolumeCreate,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create an empty disk that VMs can be given. Where every node has a pool of its own (`dir`), it is
    stored in the pool of the VM that it is first attached to, and stays there.
    """
    return await edge.forwarder.send(request, who, "POST", _INTERNAL, _json(body))


@router.get("", summary="List volumes", response_model=list[VolumeOut], responses=problems(400, 422))
async def list_(
    request: Request,
    who: Caller,
    edge: ThisEdge,
    limit: Limit = 100,
    cursor: Cursor = None,
    vm: str | None = Query(default=None, pattern="^[a-z0-9-]{1,63}$", description="Attached to this VM, by id or name"),
    status: _Status | None = Query(default=None, description="In this state"),
) -> Response:
    """A page of the project's volumes by ascending id."""
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        vm_id = None
        if vm is not None:
            number = find_id(vm)
            found_vm = await vms.find_id(conn, who.project_id, vm if number is None else number)
            vm_id = found_vm[0] if found_vm is not None else MAX_ID  # of a VM that is not there nothing is attached
        found = await volumes.list_views(conn, who.project_id, after=after, limit=limit + 1, vm_id=vm_id, status=status)
    return page(request, [volume_view(volume) for volume in found], limit)


@router.get("/{ref}", summary="Get a volume", response_model=VolumeOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One volume by id or name."""
    wanted = parse_ref("volume", ref)
    async with edge.pool.acquire() as conn:
        volume = await volumes.find_view(conn, who.project_id, wanted)
    if volume is None:
        raise NotFound("volume", ref)
    return json_response(volume_view(volume))


@router.delete(
    "/{ref}",
    summary="Delete a volume",
    status_code=204,
    response_class=Response,
    responses={**accepted(VolumeOut), **problems(400, 404, 409, 422)},
)
async def delete(
    ref: str,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Delete a volume that is not attached, with all that it holds. 204 when it is gone."""
    return await _change(edge, request, who, "DELETE", ref)


@router.post(
    "/{ref}/actions/attach",
    summary="Attach a volume to a VM",
    response_model=VolumeOut,
    responses={**accepted(VolumeOut), **problems(400, 404, 409, 413, 415, 422, 507)},
)
async def attach(
    ref: str,
    request: Request,
    body: VolumeAttach,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Plug the volume into a VM, running or not. A guest finds it as `device`."""
    async with edge.pool.acquire() as conn:
        number = find_id(body.vm)
        vm = await vms.find_id(conn, who.project_id, body.vm if number is None else number)
    return await _change(edge, request, who, "POST", ref, "attach", body, node=vm[1] if vm is not None else None)


@router.post(
    "/{ref}/actions/detach",
    summary="Detach a volume",
    response_model=VolumeOut,
    responses={**accepted(VolumeOut), **problems(400, 404, 409, 413, 415, 422)},
)
async def detach(
    ref: str,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Unplug the volume from its VM, running or not: 409 `device_busy` when the guest does not let it go.
    Unmount it in the guest first.
    """
    return await _change(edge, request, who, "POST", ref, "detach")


@router.post(
    "/{ref}/actions/resize",
    summary="Grow a volume",
    response_model=VolumeOut,
    responses={**accepted(VolumeOut), **problems(400, 404, 409, 413, 415, 422, 507)},
)
async def resize(
    ref: str,
    request: Request,
    body: VolumeResize,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Grow the volume, in use or not; a running guest sees the new size at once. Disks never shrink."""
    return await _change(edge, request, who, "POST", ref, "resize", body)


def _json(body: BaseModel) -> bytes:
    return body.model_dump_json(exclude_unset=True).encode()


async def _change(
    edge: Edge,
    request: Request,
    who: Identity,
    method: str,
    ref: str,
    action: str | None = None,
    body: BaseModel | None = None,
    *,
    node: str | None = None,
) -> Response:
    wanted = parse_ref("volume", ref)
    if node is None:
        async with edge.pool.acquire() as conn:
            node = await volumes.find_node(conn, who.project_id, wanted)
    path = f"{_INTERNAL}/{wanted}" + (f"/actions/{action}" if action else "")
    return await edge.forwarder.send(request, who, method, path, _json(body) if body else b"", node=node)
