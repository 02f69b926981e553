"""The internal application, and its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import Scope

from internal_api.node import Node
from internal_api.routes import health, images, networks, nodes, snapshots, ssh_keys, vms, volumes
from internal_api.settings import InternalSettings
from terrace import __version__, log, problems
from terrace.asgi import RequestMiddleware
from terrace.engine.worker import Probe
from terrace.metrics import RequestObserver
from terrace.serve import run


def create_app(settings: InternalSettings, probe: Probe | None = None) -> FastAPI:
    """The application of one node; ``probe`` is called around every step, for tests that kill it there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        node = await Node.start(settings, probe)
        app.state.node = node
        try:
            yield
        finally:
            await node.stop()

    app = FastAPI(title="Terrace internal API", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    problems.install(app)
    for part in (health, vms, volumes, snapshots, images, ssh_keys, nodes, networks):
        app.include_router(part.router)
    app.add_middleware(
        RequestMiddleware,
        max_body_bytes=settings.max_body_bytes + 65_536,
        streams=_streams,
        observe=RequestObserver("internal"),
    )
    return app


def _streams(scope: Scope) -> bool:
    return bool(scope["path"] == "/internal/v1/images/upload")


def serve() -> None:
    """Run one node until SIGTERM; exits 0."""
    settings = InternalSettings()
    log.configure("internal", settings.node_name, settings.log_format, settings.log_level)
    app = create_app(settings)

    def on_exit() -> None:
        node: Node | None = getattr(app.state, "node", None)
        if node is not None:
            node.release_waiters()

    run(app, settings, on_exit)
