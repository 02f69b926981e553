"""Where the API is and who asks: from the global options and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from terrace.cli.client import Api
from terrace.cli.failures import ExitCode, Failure, usage
from terrace.cli.output import Format, say

_LOAD_ENV = "On the machine that runs Terrace, `. var/env` in its checkout sets TERRACE_URL and TERRACE_TOKEN."


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one run. The token is read only when a request needs it."""

    url: str | None
    token_file: Path | None
    output: Format
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def api(self) -> Api:
        """A client; raises Failure when the URL or the token is missing or malformed."""
        return Api(self.checked_url(), self.token(), say)

    def impatient_api(self, timeout_s: float) -> Api:
        """A client that tries once, for what is better left out than waited for."""
        return Api(self.checked_url(), self.token(), say, timeout_s=timeout_s, retries=False)

    def checked_url(self) -> str:
        """The API's address without a trailing slash or /api/v1."""
        if not self.url:
            raise usage("TERRACE_URL is not set, so there is no API to ask.", f"{_LOAD_ENV} Or give --url.")
        url = self.url.strip().rstrip("/").removesuffix("/api/v1").rstrip("/")
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise usage(f"{self.url!r} is not an address of an API.", "It looks like https://cloud.example.org")
        return url

    def token(self) -> str:
        """The bearer token: --token-file, else TERRACE_TOKEN, else the file named by TERRACE_TOKEN_FILE."""
        token = self.environ.get("TERRACE_TOKEN", "").strip()
        path = self.token_file
        if path is None and not token and self.environ.get("TERRACE_TOKEN_FILE"):
            path = Path(self.environ["TERRACE_TOKEN_FILE"])
        if path is not None:
            try:
                token = path.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it holds more than a token"
                raise usage(f"Cannot read the token file {path}: {reason}.") from None
        if not token:
            raise Failure(ExitCode.DENIED, "There is no token.", hint=f"{_LOAD_ENV} Or give --token-file.")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise Failure(ExitCode.DENIED, "The token holds characters that no token has.", hint=_LOAD_ENV)
        return token


def session_of(ctx: typer.Context) -> Session:
    """The session that the root callback made."""
    session: Any = ctx.find_root().obj
    if not isinstance(session, Session):
        raise TypeError("the command was invoked without its root")
    return session
