"""Table ``idempotency_keys``: a repeated request has one effect and one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrace.db import Conn
from terrace.errors import TerraceError
from terrace.store.operations import COLUMNS as OPERATION_COLUMNS
from terrace.store.operations import Operation
from terrace.types import OperationId, ProjectId

_KEPT = "24 hours"


@dataclass(frozen=True, slots=True)
class Key:
    """What makes two requests the same one."""

    project_id: ProjectId
    route: str  # method and path
    value: str
    body_hash: bytes  # SHA-256


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier request with the same key has done."""

    operation: Operation | None
    response: Mapping[str, Any] | None


async def take(conn: Conn, key: Key) -> Earlier | None:
    """Take a key in the transaction of the change; what it did, if an earlier request had it.

    A concurrent request with the same key waits here until the first one's transaction ends.
    Raises TerraceError ``idempotency_key_reused`` when the earlier request had another body.
    """
    taken = await conn.fetchval(
        f"""insert into idempotency_keys as k (project_id, route, key, body_hash, expires_at)
            values ($1, $2, $3, $4, now() + interval '{_KEPT}')
            on conflict (project_id, route, key) do update
               set body_hash = excluded.body_hash, operation_id = null, response = null,
                   expires_at = excluded.expires_at
             where k.expires_at < now()
            returning true""",
        key.project_id,
        key.route,
        key.value,
        key.body_hash,
    )
    if taken:
        return None
    row = await conn.fetchrow(
        "select body_hash, operation_id, response from idempotency_keys where project_id=$1 and route=$2 and key=$3",
        key.project_id,
        key.route,
        key.value,
    )
    if row is None:  # forgotten since, as its operation was undone
        return await take(conn, key)
    if row["body_hash"] != key.body_hash:
        raise TerraceError(
            "idempotency_key_reused",
            "This Idempotency-Key was used with another body. Use a new key for a new request.",
        )
    operation = None
    if row["operation_id"] is not None:
        found = await conn.fetchrow(
            f"select {OPERATION_COLUMNS} from operations where id = $1",
            row["operation_id"],
        )
        operation = Operation(*found) if found else None
    return Earlier(operation, row["response"])


async def is_known(conn: Conn, key: Key) -> bool:
    """Whether an earlier request, of whatever body, had this key and has not expired."""
    return bool(
        await conn.fetchval(
            """select exists (select 1 from idempotency_keys
                where project_id = $1 and route = $2 and key = $3 and expires_at > now())""",
            key.project_id,
            key.route,
            key.value,
        )
    )


async def settle(
    conn: Conn,
    key: Key,
    *,
    operation_id: OperationId | None = None,
    response: Mapping[str, Any] | None = None,
) -> None:
    """Record what the request with this key did."""
    await conn.execute(
        """update idempotency_keys set operation_id = $4, response = $5
            where project_id = $1 and route = $2 and key = $3""",
        key.project_id,
        key.route,
        key.value,
        operation_id,
        response,
    )


async def delete_expired(conn: Conn) -> int:
    """Forget keys whose time is over; returns how many."""
    status = await conn.execute("delete from idempotency_keys where expires_at < now()")
    return int(status.split()[-1])
