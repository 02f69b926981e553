"""Tables ``images`` and ``image_locations``: golden images by checksum, and which node has their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from terrace.db import Conn
from terrace.types import ImageId, OperationId, ProjectId


@dataclass(frozen=True, slots=True)
class Image:
    """A golden image. Facts are None until the import has ended."""

    id: ImageId
    project_id: ProjectId
    name: str
    status: str
    format: str | None
    sha256: str | None
    size_bytes: int | None
    min_disk_gib: int | None
    operation_id: OperationId | None
    created_at: datetime


_COLUMNS = "id, project_id, name, status, format, sha256, size_bytes, min_disk_gib, operation_id, created_at"


async def find(conn: Conn, project_id: ProjectId, ref: int | str) -> Image | None:
    """One image of a project by id or name."""
    column = "id" if isinstance(ref, int) else "name"
    row = await conn.fetchrow(f"select {_COLUMNS} from images where project_id = $1 and {column} = $2", project_id, ref)
    return Image(*row) if row else None


async def find_by_id(conn: Conn, image_id: ImageId) -> Image | None:
    """One image of any project."""
    row = await conn.fetchrow(f"select {_COLUMNS} from images where id = $1", image_id)
    return Image(*row) if row else None


async def lock(conn: Conn, project_id: ProjectId, ref: int | str) -> Image | None:
    """One image of a project by id or name, for changes of it in this transaction."""
    column = "id" if isinstance(ref, int) else "name"
    row = await conn.fetchrow(
        f"select {_COLUMNS} from images where project_id = $1 and {column} = $2 for update", project_id, ref
    )
    return Image(*row) if row else None


async def list_of_project(conn: Conn, project_id: ProjectId, *, after: int, limit: int) -> list[Image]:
    """A project's images by id."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from images where project_id = $1 and id > $2 order by id limit $3",
        project_id,
        after,
        limit,
    )
    return [Image(*row) for row in rows]


async def insert(conn: Conn, project_id: ProjectId, name: str) -> Image:
    """Insert an image whose bytes are still to come. Raises asyncpg.UniqueViolationError."""
    row = await conn.fetchrow(
        f"insert into images (project_id, name, status) values ($1, $2, 'importing') returning {_COLUMNS}",
        project_id,
        name,
    )
    assert row is not None
    return Image(*row)


async def set_operation(conn: Conn, image_id: ImageId, operation_id: OperationId) -> None:
    """Record the operation that imports the image."""
    await conn.execute("update images set operation_id = $2 where id = $1", image_id, operation_id)


async def set_facts(
    conn: Conn, image_id: ImageId, *, format: str, sha256: str, size_bytes: int, min_disk_gib: int, node: str
) -> None:
    """Record which bytes an image is to have, now that ``node`` has them: from here on they are wanted."""
    await conn.execute(
        "update images set format = $2, sha256 = $3, size_bytes = $4, min_disk_gib = $5 where id = $1",
        image_id,
        format,
        sha256,
        size_bytes,
        min_disk_gib,
    )
    await add_location(conn, sha256, node)


async def set_available(
    conn: Conn, image_id: ImageId, *, format: str, sha256: str, size_bytes: int, min_disk_gib: int, node: str
) -> None:
    """Record an import that ended well, on ``node``."""
    await set_facts(
        conn, image_id, format=format, sha256=sha256, size_bytes=size_bytes, min_disk_gib=min_disk_gib, node=node
    )
    await conn.execute("update images set status = 'available' where id = $1", image_id)


async def delete(conn: Conn, image_id: ImageId) -> None:
    """Delete the row. Raises asyncpg.ForeignKeyViolationError while VMs are made from it."""
    await conn.execute("delete from images where id = $1", image_id)


async def count_vms(conn: Conn, image_id: ImageId) -> int:
    """How many VMs are made from an image."""
    return int(await conn.fetchval("select count(*) from vms where image_id = $1", image_id))


async def has_live_operation(conn: Conn, image_id: ImageId) -> bool:
    """Whether an operation is still at work on an image."""
    return bool(
        await conn.fetchval(
            """select exists (select 1 from operations
                where image_id = $1 and state in ('pending', 'running', 'undoing'))""",
            image_id,
        )
    )


async def add_location(conn: Conn, sha256: str, node: str) -> None:
    """Record that a node's pool holds these bytes."""
    await conn.execute(
        "insert into image_locations (sha256, node) values ($1, $2) on conflict do nothing", sha256, node
    )


async def list_locations(conn: Conn, sha256: str) -> list[tuple[str, str]]:
    """Name and URL of the nodes that hold these bytes, the most recently seen first."""
    rows = await conn.fetch(
        """select n.name, n.url from image_locations l join nodes n on n.name = l.node
            where l.sha256 = $1 order by n.last_seen desc""",
        sha256,
    )
    return [(row[0], row[1]) for row in rows]


async def is_wanted(conn: Conn, sha256: str, *, but: ImageId | None = None) -> bool:
    """Whether any image (``but`` that one) still has these bytes."""
    return bool(
        await conn.fetchval(
            "select exists (select 1 from images where sha256 = $1 and id is distinct from $2)", sha256, but
        )
    )
