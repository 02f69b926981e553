"""The dependency by which every route but health and docs asks who calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from external_api.edge import edge_of
from terrace.errors import TerraceError
from terrace.types import Identity

_KNOWN = "terrace.identity"


async def identify(request: Request) -> Identity:
    """Who calls, asked once for each request; raises ``unauthenticated``."""
    known: Identity | None = request.scope.get(_KNOWN)
    if known is None:
        known = await edge_of(request).tokens.identify(request.headers.get("authorization"))
        request.scope[_KNOWN] = known
    return known


async def require_admin(request: Request) -> Identity:
    """Who calls, if it is an administrator; raises ``forbidden``."""
    who = await identify(request)
    if who.role != "admin":
        raise TerraceError("forbidden", "Only an administrator's token may do this.")
    return who


Caller = Annotated[Identity, Depends(identify)]
Admin = Annotated[Identity, Depends(require_admin)]
