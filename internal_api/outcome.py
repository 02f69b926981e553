"""Waiting for an operation on a client's behalf, and how its failure is answered."""

from __future__ import annotations

from internal_api.caller import Caller
from internal_api.node import Node
from terrace.engine.waiters import is_live
from terrace.errors import STATUS_OF, TerraceError
from terrace.store.operations import Operation


async def wait_for(node: Node, caller: Caller, operation: Operation, *, inserted: bool) -> Operation:
    """Hand the operation to its worker and wait as long as the client wants; raises what made it fail."""
    with node.waiters.expecting(operation.id) as ended:
        if is_live(operation):
            node.submit(operation, inserted=inserted)
            if caller.wait_s:
                operation = await node.waiters.wait(ended, operation, caller.wait_s)
    raise_if_failed(operation)
    return operation


def raise_if_failed(operation: Operation) -> None:
    """TerraceError with the operation's own error and its id, when it has ended badly."""
    if is_live(operation) or operation.state == "succeeded":
        return
    error = operation.error or {}
    code = str(error.get("code", "operation_failed"))
    detail = str(error.get("detail", "The operation failed."))
    raise TerraceError(code if code in STATUS_OF else "operation_failed", detail, extra={"operation": operation.id})


def location(operation: Operation) -> dict[str, str]:
    """Where a client can follow an operation that goes on."""
    return {"Location": f"/api/v1/operations/{operation.id}"}
