"""Who calls this tier: only what the external tier (or another node) has signed gets in."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from internal_api.node import Node
from terrace import tier_auth
from terrace.errors import TerraceError
from terrace.http import wanted_wait_s
from terrace.problems import request_id_of
from terrace.store.idempotency import Key
from terrace.types import Identity


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified request."""

    identity: Identity
    body: bytes
    key: Key
    request_id: str
    wait_s: float


def node_of(request: Request) -> Node:
    """The node that answers."""
    node: Node = request.app.state.node
    return node


async def this_node(request: Request) -> Node:
    """The same as a dependency; async, because FastAPI calls those that are not in a thread."""
    return node_of(request)


def _verify(request: Request, body_hash: str) -> Identity:
    headers = request.headers
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    identity = tier_auth.verify(
        node_of(request).host.tier_secret,
        headers.get(tier_auth.IDENTITY_HEADER, ""),
        headers.get(tier_auth.SIGNATURE_HEADER, ""),
        now=time.time(),
        method=request.method,
        target=target,
        body_hash=body_hash,
        key=headers.get("idempotency-key", ""),
    )
    if identity is None:
        raise TerraceError("unauthenticated", "This tier answers only to the external tier.")
    return identity


async def signed(request: Request) -> Caller:
    """A request with its whole body, verified; raises ``unauthenticated``."""
    body = await request.body()
    identity = _verify(request, tier_auth.hash_body(body))
    return _caller(request, identity, body)


async def signed_stream(request: Request) -> Caller:
    """A request whose body is still to be read, verified; raises ``unauthenticated``."""
    return _caller(request, _verify(request, tier_auth.STREAMED), b"")


def _caller(request: Request, identity: Identity, body: bytes) -> Caller:
    return Caller(
        identity=identity,
        body=body,
        key=Key(
            project_id=identity.project_id,
            route=f"{request.method} {request.scope['path']}",
            value=request.headers.get("idempotency-key", "") or request_id_of(request),
            body_hash=hashlib.sha256(body).digest(),
        ),
        request_id=request_id_of(request),
        wait_s=wanted_wait_s(request.headers.get("prefer")),
    )


Signed = Annotated[Caller, Depends(signed)]
SignedStream = Annotated[Caller, Depends(signed_stream)]
ThisNode = Annotated[Node, Depends(this_node)]
