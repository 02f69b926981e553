"""All metrics of the internal tier but those of requests."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from terrace.store.operations import Operation

OPERATIONS = Counter("terrace_operations_total", "Operations that ended, by kind and how", ["kind", "state"])
OPERATION_SECONDS = Histogram(
    "terrace_operation_duration_seconds",
    "Time from an operation's insertion to its end",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
STEP_SECONDS = Histogram(
    "terrace_operation_step_duration_seconds",
    "Time that one attempt of a step took",
    ["kind", "step", "ok"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60),
)
POOL_CAPACITY = Gauge("terrace_pool_capacity_bytes", "Size of the node's pool, as its storage says", ["pool"])
POOL_USED = Gauge("terrace_pool_used_bytes", "What the node's pool holds, as its storage says", ["pool"])
POOL_DRIFT = Gauge(
    "terrace_pool_drift", "Where the node's pool and the records differ: orphan, missing or foreign", ["pool", "kind"]
)
CLAIMS = Counter("terrace_claims_total", "Claims of VMs: accepted, or refused and why", ["outcome"])


def observe_operation(op: Operation) -> None:
    """Count an operation that has ended."""
    OPERATIONS.labels(op.kind, op.state).inc()
    OPERATION_SECONDS.labels(op.kind).observe((datetime.now(UTC) - op.created_at).total_seconds())


def observe_step(kind: str, step: str, ok: bool, seconds: float) -> None:
    """Time one attempt of a step."""
    STEP_SECONDS.labels(kind, step, str(ok).lower()).observe(seconds)
