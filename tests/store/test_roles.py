"""What the services' database roles can't do, however they try."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.postgres import Connection, Database

from terrace.migrate import READER, WRITER, migrate

_DENIED = (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)
_READ_WRITE = "set session characteristics as transaction read write"


@pytest.fixture(autouse=True)
async def tables(database: Database) -> list[str]:
    """All tables; the database is migrated again, as a copy of a template has not what is granted on itself."""
    owner = await database.connect()
    assert await migrate(owner, "reader", "writer") == []
    rows = await owner.fetch("select tablename from pg_tables where schemaname = 'public'")
    await owner.close()
    return [row[0] for row in rows]


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[Connection]:
    conn = await database.connect(READER)
    yield conn
    await conn.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Connection]:
    conn = await database.connect(WRITER)
    yield conn
    await conn.close()


async def denied(conn: Connection, statement: str) -> None:
    try:
        await conn.execute(statement)
    except _DENIED:
        return
    raise AssertionError(f"{statement!r} was not denied")


async def test_the_reader_reads_everything(reader: Connection, tables: list[str]) -> None:
    assert len(tables) >= 14
    for table in tables:
        assert await reader.fetchval(f"select count(*) from {table}") >= 0


@pytest.mark.parametrize("insisting", [False, True])
async def test_the_reader_writes_nowhere(reader: Connection, tables: list[str], insisting: bool) -> None:
    if insisting:
        await reader.execute(_READ_WRITE)
        assert await reader.fetchval("show transaction_read_only") == "off"
    for table in tables:
        column = await reader.fetchval(
            "select attname from pg_attribute where attrelid = $1::text::regclass order by attnum desc limit 1", table
        )
        for statement in (
            f"insert into {table} default values",
            f"update {table} set {column} = {column}",
            f"delete from {table}",
            f"truncate {table}",
            f"select * from {table} for update",
            f"alter table {table} add column more text",
            f"drop table {table}",
            f"create index on {table} ({column})",
        ):
            await denied(reader, statement)


async def test_the_reader_makes_nothing(reader: Connection) -> None:
    await reader.execute(_READ_WRITE)
    for statement in (
        "create table mine (id int)",
        "create temporary table mine (id int)",
        "create view mine as select 1",
        "create function mine() returns int language sql as 'select 1'",
        "create schema mine",
        "create role mine",
        "select nextval('vms_id_seq')",
        "select setval('vms_id_seq', 1)",
        "select lo_create(0)",
        "select lo_from_bytea(0, 'x')",
        f"alter role {READER} superuser",
        f"set role {WRITER}",
        "copy vms to program 'true'",
        "copy vms from '/dev/null'",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'terrace_owner'",
    ):
        await denied(reader, statement)


async def test_the_writer_changes_no_schema(writer: Connection, tables: list[str]) -> None:
    for statement in (
        "create table mine (id int)",
        "create temporary table mine (id int)",
        "create schema mine",
        "create function mine() returns int language sql as 'select 1'",
        f"alter role {WRITER} superuser",
        "set role terrace_owner",
        *(f"alter table {table} add column more text" for table in tables),
        *(f"drop table {table}" for table in tables),
        *(f"truncate {table}" for table in tables),
    ):
        await denied(writer, statement)


@pytest.mark.parametrize("table", ["projects", "tokens", "schema_migrations"])
async def test_the_writer_grants_nobody_anything(writer: Connection, table: str) -> None:
    column = "role" if table == "tokens" else "name"
    for statement in (
        f"insert into {table} default values",
        f"update {table} set {column} = {column}",
        f"delete from {table}",
    ):
        await denied(writer, statement)


async def test_the_writer_keeps_the_books(writer: Connection) -> None:
    await writer.execute(
        """insert into nodes (name, url, cpu, cpu_overcommit, ram_mib, ram_overcommit) values ('n', '', 1, 1, 1, 1);
           update nodes set cpu = 2; delete from nodes"""
    )
