"""Networks."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Admin, Caller
from external_api.edge import ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Limit
from terrace.api.network import NetworkCreate, NetworkOut, network_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import networks

router = APIRouter(prefix="/api/v1/networks", tags=["networks"], route_class=PublicRoute)
_INTERNAL = "/internal/v1/networks"


@router.post(
    "",
    summary="Make a bridge known as a network",
    status_code=201,
    response_model=NetworkOut,
    responses=problems(400, 403, 409, 413, 415, 422),
)
async def create(request: Request, body: NetworkCreate, who: Admin, edge: ThisEdge) -> Response:
    """The bridge must exist on the nodes. With `dhcp: external`, addresses come from somebody else's DHCP server."""
    return await edge.forwarder.send(request, who, "POST", _INTERNAL, body.model_dump_json(exclude_unset=True).encode())


@router.get("", summary="List networks", response_model=list[NetworkOut], responses=problems(422))
async def list_(who: Caller, edge: ThisEdge, limit: Limit = 1000) -> Response:
    """All networks by id."""
    async with edge.pool.acquire() as conn:
        found = await networks.list_all(conn)
    return json_response([network_view(network) for network in found[:limit]])


@router.get("/{ref}", summary="Get a network", response_model=NetworkOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One network by id or name."""
    wanted = parse_ref("network", ref)
    async with edge.pool.acquire() as conn:
        network = await networks.find(conn, wanted)
    if network is None:
        raise NotFound("network", ref)
    return json_response(network_view(network))


@router.delete(
    "/{ref}",
    summary="Forget a network",
    status_code=204,
    response_class=Response,
    responses=problems(400, 403, 404, 409, 422),
)
async def delete(ref: str, request: Request, who: Admin, edge: ThisEdge) -> Response:
    """Forget a network on which no VM is left; the bridge itself is not touched."""
    return await edge.forwarder.send(request, who, "DELETE", f"{_INTERNAL}/{parse_ref('network', ref)}")
