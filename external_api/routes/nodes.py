"""Virtualization nodes."""

from __future__ import annotations

from enum import StrEnum

from fastapi import APIRouter, Request
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Admin
from external_api.edge import ThisEdge
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from terrace.api.node import NodeOut, node_view
from terrace.api.pool_drift import DriftOut, drift_view
from terrace.errors import NotFound
from terrace.http import json_response
from terrace.store import nodes, pool_drift

router = APIRouter(prefix="/api/v1/nodes", tags=["nodes"], route_class=PublicRoute)


class _ActionName(StringConvertor):
    """A path's last part that no other route has, so that each route answers 405 to methods that it lacks."""

    regex = "(?!drift$)[^/]+"


register_url_convertor("node_action", _ActionName())


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


@router.get(
    "/{name}/drift",
    summary="Get the drift of a node's pool",
    response_model=DriftOut,
    responses=problems(403, 404),
)
async def drift(name: str, who: Admin, edge: ThisEdge) -> Response:
    """How the node's pool differs from the records: volumes without a record, records without a volume, and
    volumes of others. Refreshed about once a minute; orphans are put away after an hour, and can be brought
    back by hand for a week.
    """
    wanted = str(parse_ref("node", name))
    async with edge.pool.acquire() as conn:
        pool = await pool_drift.find_pool_of_node(conn, wanted)
        if pool is None:
            raise NotFound("node", name)
        found = await pool_drift.list_of_pool(conn, pool[0])
    return json_response(drift_view(wanted, pool[1], found))


@router.post(
    "/{name}/drift/clean",
    summary="Compare a node's pool now, and put orphans away",
    response_model=DriftOut,
    responses={
        202: {"model": DriftOut, "description": "Still at it; `Location` is the operation"},
        **problems(400, 403, 404, 409, 422),
    },
)
async def clean(name: str, request: Request, who: Admin, edge: ThisEdge) -> Response:
    """Compare at once, and put away the volumes that this cloud has made and that no record speaks of: 409
    `pool_busy` while an operation may be at work in the pool. What others have made is never touched.
    """
    async with edge.pool.acquire() as conn:
        known = await nodes.find_view(conn, str(parse_ref("node", name)))
    if known is None:
        raise NotFound("node", name)
    return await edge.forwarder.send(
        request, who, "POST", f"/internal/v1/nodes/{known.name}/drift/clean", node=known.name
    )


@router.post(
    "/{name}/{action:node_action}",
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
