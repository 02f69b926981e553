"""Health, for HAProxy and for people."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from external_api.edge import ThisEdge
from terrace.http import json_response

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> dict[str, str]:
    """Answers while the process runs."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can this node take requests", responses={503: {"description": "It can't"}})
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
