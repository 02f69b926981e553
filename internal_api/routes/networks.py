"""Changes of networks."""

from __future__ import annotations

from typing import Any

import asyncpg
from fastapi import APIRouter
from starlette.responses import Response

from internal_api import simple_change
from internal_api.caller import Signed, ThisNode
from terrace.api.network import NetworkCreate, network_view
from terrace.db import Conn
from terrace.errors import Conflict, NotFound
from terrace.store import networks
from terrace.types import find_id

router = APIRouter(prefix="/internal/v1/networks", tags=["networks"])


@router.post("", summary="Make a bridge known as a network")
async def create(caller: Signed, node: ThisNode) -> Response:
    """201 with the network; 409 ``name_taken``."""
    body = NetworkCreate.model_validate_json(caller.body)

    async def work(conn: Conn) -> dict[str, Any]:
        try:
            network_id = await networks.insert(conn, body.name, body.bridge, body.dhcp)
        except asyncpg.UniqueViolationError:
            raise Conflict("name_taken", f"A network named {body.name} exists.") from None
        if body.dhcp == "terrace":
            await networks.insert_subnet(conn, network_id, body.cidr(), body.gateway_address(), body.dns)
        network = await networks.find(conn, network_id)
        assert network is not None
        return network_view(network)

    return await simple_change.run(node.host.pool, caller, 201, work)


@router.delete("/{ref}", summary="Forget a network")
async def delete(ref: str, caller: Signed, node: ThisNode) -> Response:
    """204; 409 ``network_in_use`` while VMs are on it. The bridge itself is not touched."""
    number = find_id(ref)

    async def work(conn: Conn) -> None:
        network = await networks.find(conn, ref if number is None else number)
        if network is None:
            raise NotFound("network", ref)
        try:
            await networks.delete(conn, network.id)
        except asyncpg.ForeignKeyViolationError:
            raise Conflict("network_in_use", f"VMs are still on network {network.name}.") from None

    return await simple_change.run(node.host.pool, caller, 204, work)
