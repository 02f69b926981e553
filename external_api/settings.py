"""Settings of an external node."""

from __future__ import annotations

from pydantic import Field

from terrace.settings import CommonSettings


class ExternalSettings(CommonSettings):
    """What one external node is told at its start."""

    internal_url: str
    public_url: str = ""
    internal_connections: int = Field(default=256, ge=1)
    internal_margin_s: float = Field(default=12.0, gt=0, description="Beyond what the client waits for an operation")
    upload_timeout_s: float = Field(default=3600.0, gt=0)
    token_cache_s: float = Field(default=5.0, ge=0)
