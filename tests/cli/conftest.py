"""The command in this process (fast); cli_process.py runs it as a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import Run
from stand_in_api import StandIn
from stand_in_world import TOKEN, World
from typer.testing import CliRunner, Result


@pytest.fixture(scope="session")
def server() -> Iterator[StandIn]:
    stand_in = StandIn()
    stand_in.start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def world(server: StandIn) -> World:
    """A fresh world behind the one server."""
    server.world = World()
    return server.world


@pytest.fixture
def env(server: StandIn, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the command, in this process and for subprocesses."""
    for name in [name for name in os.environ if name.startswith("TERRACE_")]:
        monkeypatch.delenv(name)
    given = {
        "TERRACE_URL": server.url,
        "TERRACE_TOKEN": TOKEN,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "PYTHONPATH": str(Path.cwd())}


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    """Runs the command in this process, without a terminal."""
    from terrace.cli.main import app

    def invoke(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="terrace")

    return invoke
