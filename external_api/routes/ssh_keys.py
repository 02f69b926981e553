"""SSH keys."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from terrace import cursor as cursors
from terrace.api.ssh_key import SshKeyCreate, SshKeyOut, ssh_key_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import ssh_keys

router = APIRouter(prefix="/api/v1/ssh-keys", tags=["ssh-keys"], route_class=PublicRoute)
_INTERNAL = "/internal/v1/ssh-keys"


@router.post(
    "",
    summary="Store an SSH key",
    status_code=201,
    response_model=SshKeyOut,
    responses=problems(400, 409, 413, 415, 422),
)
async def create(request: Request, body: SshKeyCreate, who: Caller, edge: ThisEdge) -> Response:
    """Store a public key, so that VMs can be given it by name."""
    return await edge.forwarder.send(request, who, "POST", _INTERNAL, body.model_dump_json(exclude_unset=True).encode())


@router.get("", summary="List SSH keys", response_model=list[SshKeyOut], responses=problems(400, 422))
async def list_(request: Request, who: Caller, edge: ThisEdge, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """A page of the project's keys by id."""
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        found = await ssh_keys.list_of_project(conn, who.project_id, after=after, limit=limit + 1)
    return page(request, [ssh_key_view(key) for key in found], limit)


@router.get("/{ref}", summary="Get an SSH key", response_model=SshKeyOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One key by id or name."""
    wanted = parse_ref("SSH key", ref)
    async with edge.pool.acquire() as conn:
        key = await ssh_keys.find(conn, who.project_id, wanted)
    if key is None:
        raise NotFound("SSH key", ref)
    return json_response(ssh_key_view(key))


@router.delete(
    "/{ref}", summary="Delete an SSH key", status_code=204, response_class=Response, responses=problems(400, 404, 422)
)
async def delete(ref: str, request: Request, who: Caller, edge: ThisEdge) -> Response:
    """Delete a stored key; VMs that were given it keep it."""
    return await edge.forwarder.send(request, who, "DELETE", f"{_INTERNAL}/{parse_ref('SSH key', ref)}")
