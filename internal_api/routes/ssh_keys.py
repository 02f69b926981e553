"""Changes of stored SSH keys."""

from __future__ import annotations

from typing import Any

import asyncpg
from fastapi import APIRouter
from starlette.responses import Response

from internal_api import simple_change
from internal_api.caller import Signed, ThisNode
from terrace import ssh_key
from terrace.api.ssh_key import SshKeyCreate, ssh_key_view
from terrace.db import Conn
from terrace.errors import Conflict, NotFound
from terrace.store import ssh_keys
from terrace.types import find_id

router = APIRouter(prefix="/internal/v1/ssh-keys", tags=["ssh-keys"])


@router.post("", summary="Store a public key")
async def create(caller: Signed, node: ThisNode) -> Response:
    """201 with the key; 409 ``name_taken``."""
    body = SshKeyCreate.model_validate_json(caller.body)

    async def work(conn: Conn) -> dict[str, Any]:
        try:
            key = await ssh_keys.insert(
                conn,
                caller.identity.project_id,
                body.name,
                body.public_key,
                ssh_key.fingerprint(body.public_key),
            )
        except asyncpg.UniqueViolationError:
            raise Conflict("name_taken", f"An SSH key named {body.name} exists in this project.") from None
        return ssh_key_view(key)

    return await simple_change.run(node.host.pool, caller, 201, work)


@router.delete("/{ref}", summary="Delete a stored key")
async def delete(ref: str, caller: Signed, node: ThisNode) -> Response:
    """204; VMs that have the key keep it."""
    number = find_id(ref)

    async def work(conn: Conn) -> None:
        if not await ssh_keys.delete(conn, caller.identity.project_id, ref if number is None else number):
            raise NotFound("SSH key", ref)

    return await simple_change.run(node.host.pool, caller, 204, work)
