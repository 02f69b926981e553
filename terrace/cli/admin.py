"""``terrace admin``: what is done with the database's own credentials, on a database host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terrace.cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    import asyncpg

admin_app = typer.Typer(no_args_is_help=True, help="Prepare the database (owner's credentials needed).")


@admin_app.command()
def migrate() -> None:
    """Bring the database to this release.

    Reads TERRACE_DATABASE_URL and TERRACE_DATABASE_PASSWORD_FILE of the owner, and the passwords to give to
    the two services' roles from TERRACE_READER_PASSWORD_FILE and TERRACE_WRITER_PASSWORD_FILE.
    """
    from terrace.migrate import migrate as apply
    from terrace.settings import read_secret

    reader = read_secret(Path(_required("TERRACE_READER_PASSWORD_FILE")))
    writer = read_secret(Path(_required("TERRACE_WRITER_PASSWORD_FILE")))

    async def run() -> list[str]:
        conn = await _connect()
        try:
            return await apply(conn, reader, writer)
        finally:
            await conn.close()

    applied = asyncio.run(run())
    typer.echo(f"applied {', '.join(applied)}" if applied else "up to date", err=True)


@admin_app.command()
def bootstrap(
    bridge: Annotated[str, typer.Option(help="Bridge of the default network, on every node.")],
    subnet: Annotated[str, typer.Option(help="IPv4 subnet of the default network, /16 to /29.")],
    token_file: Annotated[Path, typer.Option(help="Where the administrator's token is kept.")],
    gateway: Annotated[str, typer.Option(help="Default: the subnet's first address.")] = "",
    dns: Annotated[list[str] | None, typer.Option(help="Name server for guests; up to three.")] = None,
    project: Annotated[str, typer.Option(help="Name of the first project.")] = "default",
    network: Annotated[str, typer.Option(help="Name of the default network.")] = "default",
) -> None:
    """Make the first project, network and administrator's token, as far as they are missing."""
    from pydantic import ValidationError

    from terrace.api.network import NetworkCreate
    from terrace.bootstrap import NetworkWish
    from terrace.bootstrap import bootstrap as make

    try:
        checked = NetworkCreate(name=network, bridge=bridge, subnet=subnet, gateway=gateway or None, dns=dns or [])
    except ValidationError as exc:
        raise Failure(ExitCode.USAGE, "; ".join(str(error["msg"]) for error in exc.errors())) from None
    wish = NetworkWish(checked.name, checked.bridge, checked.cidr(), checked.gateway_address(), checked.dns)

    async def run() -> None:
        conn = await _connect()
        try:
            await make(conn, project, wish, token_file)
        finally:
            await conn.close()

    asyncio.run(run())


async def _connect() -> asyncpg.Connection[asyncpg.Record]:
    import asyncpg

    from terrace.db import prepare_connection
    from terrace.settings import read_secret

    url = _required("TERRACE_DATABASE_URL")
    password_file = os.environ.get("TERRACE_DATABASE_PASSWORD_FILE")
    try:
        conn = await asyncpg.connect(
            url, password=read_secret(Path(password_file)) if password_file else None, timeout=10.0
        )
    except (OSError, asyncpg.PostgresError, TimeoutError) as exc:
        raise Failure(ExitCode.UNAVAILABLE, f"cannot connect to the database: {exc}") from None
    await prepare_connection(conn)
    return conn


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Failure(ExitCode.USAGE, f"{name} is not set")
    return value
