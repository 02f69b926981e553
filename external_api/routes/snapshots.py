"""Snapshots."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import Edge, ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from external_api.routes.prefer import IdempotencyKey, Prefer, accepted
from terrace import cursor as cursors
from terrace.api.snapshot import SnapshotCreate, SnapshotOut, SnapshotRestore, snapshot_view
from terrace.db import Conn
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import snapshots, vms
from terrace.types import Identity, VmId

router = APIRouter(prefix="/api/v1", tags=["snapshots"], route_class=PublicRoute)


@router.post(
    "/vms/{ref}/snapshots",
    summary="Take a snapshot of a VM",
    status_code=201,
    response_model=SnapshotOut,
    responses={**accepted(SnapshotOut), **problems(400, 404, 409, 413, 415, 422, 507)},
)
async def create(
    ref: str,
    request: Request,
    body: SnapshotCreate,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Take a snapshot of all its disks at one moment, running or not. Where the guest agent answers, the
    guest's file systems are frozen for that moment; `consistency` says whether they were.
    """
    return await _change(edge, request, who, "POST", ref, "", body.model_dump_json(exclude_unset=True).encode())


@router.get(
    "/vms/{ref}/snapshots",
    summary="List a VM's snapshots",
    response_model=list[SnapshotOut],
    responses=problems(400, 404, 422),
)
async def list_of_vm(
    ref: str, request: Request, who: Caller, edge: ThisEdge, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """A page of the VM's snapshots by ascending id."""
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        vm_id = await _vm_id(conn, who, ref)
        found = await snapshots.list_views(conn, who.project_id, after=after, limit=limit + 1, vm_id=vm_id)
    return page(request, [snapshot_view(snapshot) for snapshot in found], limit)


@router.get("/snapshots", summary="List snapshots", response_model=list[SnapshotOut], responses=problems(400, 422))
async def list_(request: Request, who: Caller, edge: ThisEdge, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """A page of the snapshots of all VMs of the project by ascending id."""
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        found = await snapshots.list_views(conn, who.project_id, after=after, limit=limit + 1)
    return page(request, [snapshot_view(snapshot) for snapshot in found], limit)


@router.get(
    "/vms/{ref}/snapshots/{snapshot}", summary="Get a snapshot", response_model=SnapshotOut, responses=problems(404)
)
async def get(ref: str, snapshot: str, who: Caller, edge: ThisEdge) -> Response:
    """One snapshot of a VM by id or name."""
    wanted = parse_ref("snapshot", snapshot)
    async with edge.pool.acquire() as conn:
        found = await snapshots.find_view(conn, await _vm_id(conn, who, ref), wanted)
    if found is None:
        raise NotFound("snapshot", snapshot)
    return json_response(snapshot_view(found))


@router.delete(
    "/vms/{ref}/snapshots/{snapshot}",
    summary="Delete a snapshot",
    status_code=204,
    response_class=Response,
    responses={**accepted(SnapshotOut), **problems(400, 404, 409, 422)},
)
async def delete(
    ref: str,
    snapshot: str,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Delete a snapshot; the VM's disks stay as they are. 204 when it is gone."""
    return await _change(edge, request, who, "DELETE", ref, f"/{parse_ref('snapshot', snapshot)}")


@router.post(
    "/vms/{ref}/snapshots/{snapshot}/actions/restore",
    summary="Restore a snapshot",
    response_model=SnapshotOut,
    responses={**accepted(SnapshotOut), **problems(400, 404, 409, 413, 415, 422)},
)
async def restore(
    ref: str,
    snapshot: str,
    request: Request,
    who: Caller,
    edge: ThisEdge,
    body: SnapshotRestore | None = None,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Give the VM's disks the content that they had; all that was written since is lost. A running VM is
    restored only with `force`, which powers it off for it and starts it again. Disks that have grown since
    keep their size.
    """
    content = body.model_dump_json(exclude_unset=True).encode() if body is not None else b""
    path = f"/{parse_ref('snapshot', snapshot)}/actions/restore"
    return await _change(edge, request, who, "POST", ref, path, content)


async def _vm_id(conn: Conn, who: Identity, ref: str) -> VmId:
    found = await vms.find_id(conn, who.project_id, parse_ref("VM", ref))
    if found is None:
        raise NotFound("VM", ref)
    return found[0]


async def _change(
    edge: Edge, request: Request, who: Identity, method: str, ref: str, path: str, content: bytes = b""
) -> Response:
    wanted = parse_ref("VM", ref)
    async with edge.pool.acquire() as conn:
        found = await vms.find_id(conn, who.project_id, wanted)
    node = found[1] if found is not None else None
    target = f"/internal/v1/vms/{wanted}/snapshots{path}"
    return await edge.forwarder.send(request, who, method, target, content, node=node)
