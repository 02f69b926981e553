"""What operators want of nodes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from internal_api import simple_change
from internal_api.caller import Signed, ThisNode
from terrace.api.node import node_view
from terrace.db import Conn
from terrace.errors import NotFound
from terrace.store import nodes

router = APIRouter(prefix="/internal/v1/nodes", tags=["nodes"])

_STATE_OF: Final = {"drain": "draining", "undrain": "active", "maintenance": "maintenance"}


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
