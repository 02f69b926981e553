"""The public application, and its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.types import Scope

from external_api.answers import Problem
from external_api.answers import problems as problems_of
from external_api.edge import Edge
from external_api.routes import health, images, networks, nodes, operations, snapshots, ssh_keys, vms, volumes
from external_api.settings import ExternalSettings
from terrace import __version__, log, problems
from terrace.api.image import ImageCreate
from terrace.asgi import RequestMiddleware
from terrace.metrics import RequestObserver
from terrace.serve import run

_ABOUT = """A private cloud's public API. Send `Authorization: Bearer TOKEN` with every request.

Errors are RFC 9457 problem documents with a stable `code`. Changes are operations: a request waits
for its operation up to 30 s (`Prefer: wait=N`, at most 60, or `respond-async`) and answers 202 with
`Location` when it is not done by then. Lists are pages: follow `Link: rel="next"`.
"""


def create_app(settings: ExternalSettings) -> FastAPI:
    """The application of one external node."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.edge = await Edge.start(settings)
        try:
            yield
        finally:
            await app.state.edge.stop()

    app = FastAPIOffline(
        title="Terrace",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # a body without a type is JSON; PublicRoute refuses other types
    )
    problems.install(app)
    for part in (vms, volumes, snapshots, operations, images, ssh_keys, networks, nodes, health):
        app.include_router(part.router)
    app.add_middleware(
        RequestMiddleware,
        max_body_bytes=settings.max_body_bytes,
        streams=_streams,
        observe=RequestObserver("external"),
    )
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with bearer tokens and problem documents."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = document.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for model in (Problem, ImageCreate):  # which FastAPI does not see in the routes
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for operation in methods.values():
                if path.startswith("/api/"):
                    operation["security"] = [{"token": []}]
                described = operation["responses"].get("422", {}).get("content", {})
                if "application/json" in described:  # FastAPI's own shape, which is never answered
                    operation["responses"]["422"] = problems_of(422)[422]
        app.openapi_schema = document
    return app.openapi_schema


def _streams(scope: Scope) -> bool:
    if scope["path"] != "/api/v1/images":
        return False
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bool(kind.lower().startswith(b"application/octet-stream"))


def serve() -> None:
    """Run one external node until SIGTERM; exits 0."""
    settings = ExternalSettings()
    log.configure("external", settings.node_name, settings.log_format, settings.log_level)
    run(create_app(settings), settings)
