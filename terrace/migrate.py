"""Bringing a database to this release: roles, numbered SQL files, privileges. Forward only."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

import asyncpg

from terrace import log

_log = log.get(__name__)
_LOCK: Final = 7_237_000
READER: Final = "terrace_reader"
WRITER: Final = "terrace_writer"


async def migrate(conn: asyncpg.Connection[asyncpg.Record], reader_password: str, writer_password: str) -> list[str]:
    """Apply what is missing, each file in its own transaction; returns the names of the files applied.

    ``conn`` is the owner's. Safe to run twice and from two places at once. Raises RuntimeError when an
    applied file has been edited since.
    """
    await conn.execute("select pg_advisory_lock($1)", _LOCK)
    try:
        await _ensure_role(conn, READER, reader_password)
        await _ensure_role(conn, WRITER, writer_password)
        applied = await _apply_missing(conn)
        await _grant(conn)
        return applied
    finally:
        await conn.execute("select pg_advisory_unlock($1)", _LOCK)


async def _apply_missing(conn: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    await conn.execute(
        """create table if not exists schema_migrations (
               name text primary key, sha256 text not null, applied_at timestamptz not null default now())"""
    )
    known = {row["name"]: row["sha256"] for row in await conn.fetch("select name, sha256 from schema_migrations")}
    folder = resources.files("terrace").joinpath("migrations")
    applied = []
    for file in sorted((part for part in folder.iterdir() if part.name.endswith(".sql")), key=lambda part: part.name):
        text = file.read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if file.name in known:
            if known[file.name] != digest:
                raise RuntimeError(f"migration {file.name} was edited after it had been applied")
            continue
        async with conn.transaction():
            await conn.execute(text)
            await conn.execute("insert into schema_migrations (name, sha256) values ($1, $2)", file.name, digest)
        _log.info("migration_applied", name=file.name)
        applied.append(file.name)
    return applied


async def _ensure_role(conn: asyncpg.Connection[asyncpg.Record], name: str, password: str) -> None:
    if not await conn.fetchval("select exists (select 1 from pg_roles where rolname = $1)", name):
        await conn.execute(f"create role {name} login nosuperuser nocreatedb nocreaterole")
    # DDL takes no parameters: the server itself quotes the literal
    await conn.execute(
        await conn.fetchval("select format('alter role %I password %L', $1::text, $2::text)", name, password)
    )


async def _grant(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    await conn.execute(
        f"""revoke create on schema public from public;
            grant usage on schema public to {READER}, {WRITER};
            grant select on all tables in schema public to {READER};
            grant select, insert, update, delete on all tables in schema public to {WRITER};
            revoke insert, update, delete on schema_migrations, projects, tokens from {WRITER};
            grant usage on all sequences in schema public to {WRITER};
            alter role {READER} set default_transaction_read_only = on"""
    )
    await conn.execute(_REVOKE_FROM_EVERYBODY)


# PostgreSQL lets every role make temporary tables and large objects, that is, fill the disk.
_REVOKE_FROM_EVERYBODY: Final = """
do $$ begin
    execute format('revoke temporary on database %I from public', current_database());
    if (select rolsuper from pg_roles where rolname = current_user) then
        revoke execute on function lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) from public;
    end if;
end $$"""
