"""The `terrace` command as a person uses it, on a real platform."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from public_client import Api
from stack_run import StackRun

pytestmark = pytest.mark.e2e

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def terrace(stack: StackRun, api: Api, key: Path, folder: Path) -> Run:
    """Runs the command with the settings that `. var/env` gives, but for the key."""
    text = subprocess.run(
        ["env", "-i", "sh", "-c", f". {stack.layout.env_file} && env"], capture_output=True, text=True, check=True
    ).stdout
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found["TERRACE_URL"] == api.url
    env = {**found, "TERRACE_SSH_KEY": str(key), "HOME": str(folder), "COLUMNS": "120"}
    env["PATH"] += ":/usr/bin:/bin"

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("terrace")), *words]
        if not Path(command[0]).exists():
            command[:1] = [sys.executable, "-m", "terrace.cli.main"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def read(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_machine_from_the_shell(terrace: Run, fleet: Any, folder: Path, key: Path) -> None:
    public = str(key.with_suffix(".pub"))
    assert read(terrace("key", "create", "desk", public, "-o", "json"))["name"] == "desk"
    words = ("--ram", "128", "--disk", "2G", "--key", "desk", "--label", "from=shell", "--wait-ready")
    done = terrace("vm", "create", "shell-1", *words, "--timeout", "200", "-o", "json")
    vm = read(done)
    assert (vm["name"], vm["status"], vm["disk_gib"], vm["labels"]) == ("shell-1", "running", 2, {"from": "shell"})
    assert vm["ready_at"]

    assert terrace("vm", "ssh", "shell-1", "--", "hostname").stdout == "shell-1\n"
    terrace("vm", "ssh", "shell-1", "--", "exit 7", code=7)
    assert terrace("vm", "ssh", "-l", "terrace", "shell-1", "--", "id", "-un").stdout == "terrace\n"

    assert [one["name"] for one in read(terrace("vm", "list", "--label", "from=shell", "-o", "json"))] == ["shell-1"]
    assert "shell-1" in terrace("vm", "list").stdout
    assert read(terrace("vm", "show", "shell-1", "-o", "json")) == vm
    assert vm["ip"] in terrace("vm", "show", str(vm["id"])).stdout
    operation = read(terrace("op", "show", str(vm["operation"]), "-o", "json"))
    assert (operation["kind"], operation["state"]) == ("vm_create", "succeeded")
    assert "placement" in terrace("op", "show", str(vm["operation"])).stdout
    assert read(terrace("op", "list", "--vm", "shell-1", "-o", "json"))[0]["id"] == vm["operation"]
    assert {node["name"] for node in read(terrace("node", "list", "-o", "json"))} == {"hv1", "hv2"}
    assert read(terrace("node", "show", vm["node"], "-o", "json"))["vms"] >= 1
    assert [image["name"] for image in read(terrace("image", "list", "-o", "json"))] == ["tiny"]
    assert read(terrace("image", "show", "tiny", "-o", "json"))["status"] == "available"

    done = terrace("vm", "stop", "shell-1", "-o", "json")
    assert read(done)["status"] == "stopped"
    assert read(terrace("vm", "start", "shell-1", "-o", "json"))["status"] == "running"
    assert read(terrace("vm", "poweroff", "shell-1", "-o", "json"))["status"] == "stopped"
    terrace("vm", "delete", "shell-1", "--yes")
    terrace("vm", "show", "shell-1", code=3)
    terrace("key", "delete", "desk", "--yes")


def test_exit_codes_say_what_went_wrong(terrace: Run, fleet: Any) -> None:
    assert "left" in terrace("vm", "create", "left", code=1).stderr
    terrace("vm", "create", code=2)
    assert "no-such" in terrace("vm", "show", "no-such", code=3).stderr
    terrace("--url", "http://127.0.0.1:1", "vm", "list", code=4)
    done = terrace("vm", "create", "shell-2", "--image", "no-such", code=1)
    assert "no-such" in done.stderr
    terrace("vm", "show", "shell-2", code=3)
