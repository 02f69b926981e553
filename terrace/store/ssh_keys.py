"""Table ``ssh_keys``: public keys that VMs can be given by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from terrace.db import Conn
from terrace.types import ProjectId


@dataclass(frozen=True, slots=True)
class SshKey:
    """A stored public key."""

    id: int
    name: str
    public_key: str
    fingerprint: str
    created_at: datetime


_COLUMNS = "id, name, public_key, fingerprint, created_at"


async def insert(conn: Conn, project_id: ProjectId, name: str, public_key: str, fingerprint: str) -> SshKey:
    """Store a key. Raises asyncpg.UniqueViolationError when the name is taken."""
    row = await conn.fetchrow(
        f"""insert into ssh_keys (project_id, name, public_key, fingerprint) values ($1, $2, $3, $4)
            returning {_COLUMNS}""",
        project_id,
        name,
        public_key,
        fingerprint,
    )
    assert row is not None
    return SshKey(*row)


async def find(conn: Conn, project_id: ProjectId, ref: int | str) -> SshKey | None:
    """One key of a project by id or name."""
    column = "id" if isinstance(ref, int) else "name"
    row = await conn.fetchrow(
        f"select {_COLUMNS} from ssh_keys where project_id = $1 and {column} = $2", project_id, ref
    )
    return SshKey(*row) if row else None


async def list_of_project(conn: Conn, project_id: ProjectId, *, after: int, limit: int) -> list[SshKey]:
    """A project's keys by id."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from ssh_keys where project_id = $1 and id > $2 order by id limit $3",
        project_id,
        after,
        limit,
    )
    return [SshKey(*row) for row in rows]


async def find_by_names(conn: Conn, project_id: ProjectId, names: Sequence[str]) -> dict[str, str]:
    """Public keys by name, for those names that exist."""
    rows = await conn.fetch(
        "select name, public_key from ssh_keys where project_id = $1 and name = any($2)", project_id, names
    )
    return {row[0]: row[1] for row in rows}


async def delete(conn: Conn, project_id: ProjectId, ref: int | str) -> bool:
    """Delete a key; false when there was none."""
    column = "id" if isinstance(ref, int) else "name"
    return bool(
        await conn.fetchval(
            f"delete from ssh_keys where project_id = $1 and {column} = $2 returning true", project_id, ref
        )
    )
