"""The command as a shell sees it: start-up, help, completion."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping

import pytest
from cli_process import COMMAND, Run, run_process
from stand_in_world import World, problem

from terrace import __version__

GROUPS = ("vm", "volume", "snapshot", "image", "key", "network", "node", "op", "admin")


def complete(env: Mapping[str, str], line: str) -> list[str]:
    """What bash would offer after ``line``."""
    words = line.split(" ")
    shell = {"_TERRACE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return subprocess.run(COMMAND, env={**env, **shell}, capture_output=True, text=True, timeout=30).stdout.split()


def test_version(run: Run) -> None:
    assert run("version").stdout == f"{__version__}\n"


def test_help_tells_exit_codes(run: Run) -> None:
    shown = " ".join(run("--help").stdout.split())
    assert "Exit codes: 0 done;" in shown
    assert "130 interrupted" in shown


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_has_help(run: Run, group: str) -> None:
    assert run(group, "--help").exit_code == 0


def test_only_the_command_itself_is_imported() -> None:
    """Servers' modules and slow libraries would cost every start."""
    heavy = "httpx rich asyncpg fastapi pydantic libvirt redis external_api internal_api terrace.store"
    code = f"import sys, terrace.cli.main; print(*[name for name in {heavy.split()} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == ""


def test_help_comes_at_once(env: dict[str, str]) -> None:
    def seconds() -> float:
        began = time.monotonic()
        assert run_process(env, "--help").returncode == 0
        return time.monotonic() - began

    # 0.2 s on an idle machine; the bound has room for a busy one
    assert min(seconds() for _ in range(3)) < 1.0


def test_commands_are_completed(env: dict[str, str]) -> None:
    assert complete(env, "terrace vm st") == ["start", "stop"]


def test_names_are_completed_from_the_api(env: dict[str, str], world: World) -> None:
    world.add_vm("web-1")
    world.add_vm("web-2")
    world.add_vm("db-1")
    world.images["tiny"] = {"id": 1, "name": "tiny"}
    assert complete(env, "terrace vm show web") == ["web-1", "web-2"]
    assert complete(env, "terrace vm create x --image t") == ["tiny"]
    world.add_volume("data")
    world.add_snapshot("before", world.vms["db-1"])
    assert complete(env, "terrace volume attach d") == ["data"]
    assert complete(env, "terrace snapshot restore db-1 b") == ["before"]
    assert complete(env, "terrace image create x --from-vm db-1 --snapshot b") == ["before"]
    assert complete(env, "terrace image create x --snapshot b") == []


def test_completion_is_silent_when_the_api_is_not_there(env: dict[str, str], world: World) -> None:
    assert complete({**env, "TERRACE_URL": "http://127.0.0.1:1"}, "terrace vm show ") == []
    assert complete({**env, "TERRACE_TOKEN": ""}, "terrace vm show ") == []
    world.faults.append(lambda: problem(500, "internal_error", "Oh."))
    assert complete(env, "terrace vm show ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(env: dict[str, str], shell: str) -> None:
    forced = {**env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = run_process(forced, "--show-completion", shell)
    assert shown.returncode == 0
    assert "_TERRACE_COMPLETE" in shown.stdout


def test_a_closed_pipe_is_no_error(env: dict[str, str], world: World) -> None:
    for number in range(300):
        world.add_vm(f"vm-{number}", image="x" * 400)
    piped = subprocess.run(
        ["bash", "-c", '"$@" | head -1', "-", *COMMAND, "vm", "list"],
        env=env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert piped.stdout.startswith("NAME")
    assert "Traceback" not in piped.stderr
