"""Virtualization nodes."""

from __future__ import annotations

from enum import StrEnum

from fastapi import APIRouter, Request
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Admin
from external_api.edge import ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from terrace.api.node import NodeOut, node_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import nodes

router = APIRouter(prefix="/api/v1/nodes", tags=["nodes"], route_class=PublicRoute)


class NodeAction(StrEnum):
    """What operators may want of a node."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    MAINTENANCE = "maintenance"


@router.get("", summary="List nodes", response_model=list[NodeOut], responses=problems(403))
async def list_(who: Admin, edge: ThisEdge) -> Response:
    """All nodes: what they offer, what is claimed of it, and whether they live."""
    async with edge.pool.acquire() as conn:
        found = await nodes.list_views(conn)
    return json_response([node_view(node) for node in found])


@router.get("/{name}", summary="Get a node", response_model=NodeOut, responses=problems(403, 404))
async def get(name: str, who: Admin, edge: ThisEdge) -> Response:
    """One node, by its name."""
    async with edge.pool.acquire() as conn:
        node = await nodes.find_view(conn, str(parse_ref("node", name)))
    if node is None:
        raise NotFound("node", name)
    return json_response(node_view(node))


@router.post(
    "/{name}/{action}",
    summary="Drain, undrain or maintain a node",
    response_model=NodeOut,
    responses=problems(400, 403, 404, 422),
)
async def act(name: str, action: NodeAction, request: Request, who: Admin, edge: ThisEdge) -> Response:
    """A draining node, or one in maintenance, gets no new VMs; what it runs goes on running."""
    async with edge.pool.acquire() as conn:
        known = await nodes.find_view(conn, str(parse_ref("node", name)))
    if known is None:
        raise NotFound("node", name)
    return await edge.forwarder.send(request, who, "POST", f"/internal/v1/nodes/{known.name}/{action}")
