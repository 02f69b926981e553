"""The first project, network and token of a cloud. Safe to run again."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from terrace.settings import read_secret
from terrace.store import networks, tokens

TOKEN_PREFIX = "terrace_"  # noqa: S105 - recognisable by secret scanners


@dataclass(frozen=True, slots=True)
class NetworkWish:
    """The network that VMs are put on by default."""

    name: str
    bridge: str
    subnet: ipaddress.IPv4Network
    gateway: ipaddress.IPv4Address
    dns: Sequence[str]


async def bootstrap(
    conn: asyncpg.Connection[asyncpg.Record], project: str, network: NetworkWish, token_file: Path
) -> str:
    """Make what is missing of project, network and administrator's token; returns the token.

    A token in ``token_file`` (mode 0600) is kept and made known if it is not; otherwise a new one is
    written there.
    """
    token = _keep_token(token_file)
    async with conn.transaction():
        project_id = await tokens.ensure_project(conn, project)
        await tokens.ensure_token(conn, project_id, hash_token(token), "admin", "bootstrap")
        if await networks.find(conn, network.name) is None:
            network_id = await networks.insert(conn, network.name, network.bridge, "terrace")
            await networks.insert_subnet(conn, network_id, network.subnet, network.gateway, network.dns)
    return token


def _keep_token(path: Path) -> str:
    if path.exists() and (token := read_secret(path)):
        return token
    token = new_token()
    _write_secret(path, token)
    return token


def new_token() -> str:
    """A 256-bit random token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    partial.replace(path)
