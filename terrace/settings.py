"""Settings that both tiers share, from environment variables with the prefix ``TERRACE_``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommonSettings(BaseSettings):
    """What every service of Terrace is told at its start."""

    model_config = SettingsConfigDict(env_prefix="TERRACE_", extra="ignore")

    node_name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    database_url: str
    database_password_file: Path | None = None
    database_pool_size: int = Field(default=10, ge=1, le=100)
    database_timeout_s: float = Field(default=10.0, gt=0)
    redis_url: str
    redis_timeout_s: float = Field(default=0.5, gt=0)
    tier_secret_file: Path
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(default=262_144, ge=1024)

    def database_password(self) -> str | None:
        """The password of ``database_url``'s role, when it is kept in a file."""
        return read_secret(self.database_password_file) if self.database_password_file else None

    def tier_secret(self) -> bytes:
        """The secret with which the external tier signs what it sends to the internal one."""
        return read_secret(self.tier_secret_file).encode()


def read_secret(path: Path) -> str:
    """Content of a secret file without its final newline."""
    return path.read_text(encoding="utf-8").strip()
