"""Changes that need no operation: one transaction, whose answer a repeated request gets again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from internal_api.caller import Caller
from terrace.db import Conn, Pool, in_transaction
from terrace.http import dumps
from terrace.store import idempotency


async def run(
    pool: Pool, caller: Caller, status: int, work: Callable[[Conn], Awaitable[dict[str, Any] | None]]
) -> Response:
    """Run ``work`` once for this request's key and answer with what it returns, as JSON."""

    async def once(conn: Conn) -> bytes | None:
        earlier = await idempotency.take(conn, caller.key)
        if earlier is not None and earlier.response is not None:
            body: str | None = earlier.response["body"]
            return None if body is None else body.encode()
        view = await work(conn)
        text = None if view is None else dumps(view)
        # as text: jsonb would not keep the order of its keys
        await idempotency.settle(conn, caller.key, response={"body": None if text is None else text.decode()})
        return text

    text = await in_transaction(pool, once)
    if text is None:
        return Response(status_code=status)
    return Response(text, status, media_type="application/json")
