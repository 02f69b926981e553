"""Domain errors: each has a stable code, a sentence for its reader, and the HTTP status of its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# One table maps codes to HTTP (RFC 9457 bodies are made in terrace.problems).
STATUS_OF: Mapping[str, int] = {
    "bad_request": 400,
    "bad_json": 400,
    "bad_cursor": 400,
    "bad_filter": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "name_taken": 409,
    "vm_busy": 409,
    "vm_state": 409,
    "superseded": 409,
    "image_in_use": 409,
    "image_not_ready": 409,
    "volume_in_use": 409,
    "volume_state": 409,
    "volume_busy": 409,
    "volume_elsewhere": 409,
    "pool_busy": 409,
    "snapshot_state": 409,
    "snapshot_missing": 409,
    "device_busy": 409,
    "network_in_use": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "size_out_of_range": 422,
    "unknown_image": 422,
    "unknown_vm": 422,
    "unknown_snapshot": 422,
    "too_many_volumes": 422,
    "unknown_network": 422,
    "unknown_ssh_key": 422,
    "invalid_ssh_key": 422,
    "invalid_user_data": 422,
    "idempotency_key_reused": 422,
    "checksum_mismatch": 422,
    "image_invalid": 422,
    "image_too_large": 422,
    "image_download_failed": 422,
    "refused": 425,
    "rate_limited": 429,
    "internal_error": 500,
    "operation_failed": 500,
    "volume_missing": 500,
    "bad_gateway": 502,
    "service_unavailable": 503,
    "hypervisor_unavailable": 503,
    "storage_unavailable": 503,
    "database_unavailable": 503,
    "gateway_timeout": 504,
    "no_capacity": 507,
    "no_address": 507,
    "pool_full": 507,
}

TITLE_OF: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    425: "Too Early",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}


class TerraceError(Exception):
    """An error with a code that clients may rely on.

    ``detail`` is public: it never carries a path, SQL, a host's address or another exception's text;
    those go into ``internal``, which is only logged.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        internal: str | None = None,
        fields: tuple[tuple[str, str], ...] = (),
        extra: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}" + (f" [{internal}]" if internal else ""))
        self.code = code
        self.detail = detail
        self.internal = internal
        self.fields = fields
        self.extra = dict(extra or {})
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return STATUS_OF.get(self.code, 500)


class Conflict(TerraceError):
    """A guarded state change found another state than it asked for."""


class NotFound(TerraceError):
    """No such thing, or not the caller's."""

    def __init__(self, what: str, ref: object) -> None:
        super().__init__("not_found", f"There is no {what} {str(ref)[:80]!r}.")


class Refused(TerraceError):
    """This node can't take the VM; another one may (HTTP 425 between the tiers, nothing was changed)."""

    def __init__(self, reason: str) -> None:
        super().__init__("refused", f"This node refused the VM: {reason}.", extra={"reason": reason})
        self.reason = reason


class Transient(TerraceError):
    """The outside world failed in a way that a later attempt may not."""


class Permanent(TerraceError):
    """The outside world refused; trying again would give the same answer."""
