"""What operators want of nodes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from internal_api import outcome, simple_change
from internal_api.caller import Signed, ThisNode
from internal_api.reconcile.pool import compare
from internal_api.workflows import clean_pool
from terrace.api.node import node_view
from terrace.api.pool_drift import drift_view
from terrace.db import Conn
from terrace.engine.waiters import is_live
from terrace.errors import Conflict, NotFound, TerraceError
from terrace.http import json_response
from terrace.store import nodes, pool_drift

router = APIRouter(prefix="/internal/v1/nodes", tags=["nodes"])

_STATE_OF: Final = {"drain": "draining", "undrain": "active", "maintenance": "maintenance"}


@router.post("/{name}/drift/clean", summary="Compare the pool now, and put orphans away")
async def clean(name: str, caller: Signed, node: ThisNode) -> Response:
    """200 with what is left, 202 when not done yet. Any node that uses the pool may do it."""
    host = node.host
    async with host.pool.acquire() as conn:
        pool = await pool_drift.find_pool_of_node(conn, name)
    if pool is None:
        raise NotFound("node", name)
    if pool[0] != host.pool_id:
        raise TerraceError("service_unavailable", f"Node {name}, whose pool it is, does not answer.")
    await compare(host)
    async with host.pool.acquire() as conn:
        orphans = await pool_drift.list_old_orphans(conn, host.pool_id, 0)
    operation = None
    if orphans:
        operation = await clean_pool.begin(host, caller.identity, orphans, request_id=caller.request_id)
        if operation is None:
            raise Conflict("pool_busy", "An operation may be at work in the pool. Wait for it to end.")
        operation = await outcome.wait_for(node, caller, operation, inserted=True)
    async with host.pool.acquire() as conn:
        found = await pool_drift.list_of_pool(conn, host.pool_id)
        pool = await pool_drift.find_pool_of_node(conn, name)
    assert pool is not None
    view = drift_view(name, pool[1], found)
    if operation is not None and is_live(operation):
        return json_response(view, 202, outcome.location(operation))
    return json_response(view)


@router.post("/{name}/{wish}", summary="Drain, undrain or maintain a node")
async def set_state(name: str, wish: str, caller: Signed, node: ThisNode) -> Response:
    """200 with the node; its agent tells HAProxy within a heartbeat, and claims see it at once."""

    async def work(conn: Conn) -> dict[str, Any]:
        if wish not in _STATE_OF:
            raise NotFound("action", wish)
        if not await nodes.set_state(conn, name, _STATE_OF[wish]):
            raise NotFound("node", name)
        view = await nodes.find_view(conn, name)
        if view is None:
            raise NotFound("node", name)
        return node_view(view)

    return await simple_change.run(node.host.pool, caller, 200, work)
