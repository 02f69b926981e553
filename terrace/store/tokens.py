"""Tables ``projects`` and ``tokens``: who may act, and where."""

from __future__ import annotations

from datetime import datetime

from terrace.db import Conn
from terrace.types import Identity, ProjectId, TokenId


async def find_identity(conn: Conn, token_hash: bytes) -> tuple[Identity, datetime | None] | None:
    """Whom a token's SHA-256 stands for and when it expires; None when unknown, revoked or expired."""
    row = await conn.fetchrow(
        """select project_id, id, role, expires_at from tokens
            where token_hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())""",
        token_hash,
    )
    if row is None:
        return None
    return Identity(ProjectId(row["project_id"]), TokenId(row["id"]), row["role"]), row["expires_at"]


async def ensure_project(conn: Conn, name: str) -> ProjectId:
    """Id of the project of that name, made if absent."""
    found = await conn.fetchval(
        """insert into projects (name) values ($1)
           on conflict (name) do update set name = excluded.name returning id""",
        name,
    )
    return ProjectId(found)


async def ensure_token(conn: Conn, project_id: ProjectId, token_hash: bytes, role: str, description: str) -> None:
    """Store a token's hash, unless it is known."""
    await conn.execute(
        """insert into tokens (project_id, token_hash, role, description) values ($1, $2, $3, $4)
           on conflict (token_hash) do nothing""",
        project_id,
        token_hash,
        role,
        description,
    )
