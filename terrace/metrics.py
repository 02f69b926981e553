"""Request metrics that both tiers have."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUEST_SECONDS = Histogram(
    "terrace_http_request_duration_seconds",
    "Time to answer, by route template",
    ["tier", "route", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REQUESTS = Counter(
    "terrace_http_requests_total",
    "Answers by route template and status",
    ["tier", "route", "method", "status"],
)


class RequestObserver:
    """Counts and times the requests of one tier."""

    def __init__(self, tier: str) -> None:
        self._tier = tier

    def __call__(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "OTHER"
        REQUESTS.labels(self._tier, route, known, str(status)).inc()
        REQUEST_SECONDS.labels(self._tier, route, known).observe(seconds)
