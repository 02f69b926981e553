"""Health, for HAProxy and for people."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import Response

from external_api.edge import ThisEdge
from terrace.http import json_response

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """That a process runs."""

    status: str = Field(examples=["ok"])


class Check(BaseModel):
    """Whether one dependency answers."""

    ok: bool


class Readiness(BaseModel):
    """Whether a node can take requests, and what it depends on."""

    ready: bool
    checks: dict[str, Check] = Field(examples=[{"postgres": {"ok": True}, "redis": {"ok": True}}])


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> Alive:
    """Answers while the process runs."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    summary="Can this node take requests",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "It can't"}},
)
async def readyz(edge: ThisEdge) -> Response:
    """200 or 503, with each dependency by name. Redis is reported and not required."""
    checks = await edge.checks()
    ready = checks["postgres"]
    return json_response(
        {"ready": ready, "checks": {name: {"ok": ok} for name, ok in checks.items()}}, 200 if ready else 503
    )


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Metrics in Prometheus' text format; HAProxy does not let them out."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
