"""Health and metrics, for HAProxy and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from internal_api.caller import ThisNode
from terrace.http import json_response

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> dict[str, str]:
    """Answers while the process runs."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can the node take requests")
async def readyz(node: ThisNode) -> Response:
    """200 or 503, with each dependency by name; Redis is reported and not required."""
    ready = node.heart.ready()
    checks = {name: {"ok": ok} for name, ok in node.heart.checks().items()}
    return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics")
async def metrics() -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
