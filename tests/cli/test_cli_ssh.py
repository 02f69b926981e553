"""``terrace vm ssh``: what it runs, told by an ssh on PATH that writes down its arguments."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from cli_process import run_process
from stand_in_world import World

from terrace.cli.ssh import forget_host_key, known_hosts_file, ssh_arguments

GUEST = {"id": 7, "ip": "10.77.0.10", "created_at": "2026-01-31T12:00:00Z"}


@pytest.fixture
def ssh_env(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh prints its arguments, one a line, and exits with 42."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "ssh").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 42\n")
    (bin_dir / "ssh").chmod(0o755)
    return {**env, "PATH": f"{bin_dir}:{env['PATH']}"}


def test_a_shell_in_the_guest(ssh_env: dict[str, str], world: World, tmp_path: Path) -> None:
    vm = world.add_vm("test-1")
    result = run_process(ssh_env, "vm", "ssh", "test-1")
    arguments = result.stdout.splitlines()
    assert result.returncode == 42, result.stderr
    assert arguments[-4:] == ["-l", "root", "--", vm["ip"]]
    assert f"HostKeyAlias=terrace-{vm['id']}" in arguments
    assert "StrictHostKeyChecking=accept-new" in arguments
    assert "-i" not in arguments
    known_hosts = next(one for one in arguments if one.startswith("UserKnownHostsFile="))
    assert f'"{tmp_path}/config/terrace/known_hosts/' in known_hosts
    assert result.stderr == ""


def test_a_command_user_key_and_options(ssh_env: dict[str, str], world: World) -> None:
    vm = world.add_vm("test-1")
    result = run_process(
        ssh_env,
        "vm",
        "ssh",
        "-l",
        "debian",
        "-i",
        "/k/id",
        "-o",
        "ConnectTimeout=9",
        "1",
        "--",
        "ls",
        "-l",
        "a b",
    )
    arguments = result.stdout.splitlines()
    assert arguments[-7:] == ["-l", "debian", "--", vm["ip"], "ls", "-l", "a b"]
    assert arguments[arguments.index("-i") + 1] == "/k/id"
    assert "IdentitiesOnly=yes" in arguments
    assert arguments.index("ConnectTimeout=9") < arguments.index("ConnectTimeout=5")


def test_the_key_comes_from_the_environment(ssh_env: dict[str, str], world: World) -> None:
    world.add_vm("test-1")
    arguments = run_process({**ssh_env, "TERRACE_SSH_KEY": "/env/id"}, "vm", "ssh", "test-1").stdout.splitlines()
    assert arguments[arguments.index("-i") + 1] == "/env/id"


def test_it_waits_until_the_guest_answers(ssh_env: dict[str, str], world: World) -> None:
    world.add_vm("test-1", ready_at=None, _looks_left=3)
    result = run_process(ssh_env, "vm", "ssh", "test-1")
    assert result.returncode == 42
    assert "waiting for the guest" in result.stderr
    assert len(world.seen) == 3


def test_a_stopped_vm_does_not_answer(ssh_env: dict[str, str], world: World) -> None:
    world.add_vm("test-1", status="stopped")
    result = run_process(ssh_env, "vm", "ssh", "test-1")
    assert result.returncode == 1
    assert "terrace vm start test-1" in result.stderr


def test_waiting_ends(ssh_env: dict[str, str], world: World) -> None:
    world.add_vm("test-1", ready_at=None)
    assert run_process(ssh_env, "vm", "ssh", "test-1", "--timeout", "0.2").returncode == 6


def test_without_ssh_it_says_what_to_install(env: dict[str, str], world: World, tmp_path: Path) -> None:
    world.add_vm("test-1")
    result = run_process({**env, "PATH": str(tmp_path)}, "vm", "ssh", "test-1")
    assert result.returncode == 1
    assert "openssh-client" in result.stderr


def test_a_new_vm_with_an_old_id_is_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    files = {
        known_hosts_file("http://127.0.0.1:8080", GUEST),
        known_hosts_file("http://127.0.0.1:8080", {**GUEST, "created_at": "2026-02-01T12:00:00Z"}),
        known_hosts_file("http://127.0.0.1:9090", GUEST),
        known_hosts_file("http://127.0.0.1:8080", {**GUEST, "id": 8}),
    }
    assert len(files) == 4


def test_a_deleted_vm_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = known_hosts_file("http://x", GUEST)
    file.parent.mkdir(parents=True)
    file.touch()
    forget_host_key("http://x", GUEST)
    forget_host_key("http://x", GUEST)
    assert not file.exists()


def test_the_real_ssh_understands_it(tmp_path: Path) -> None:
    known_hosts = tmp_path / "with blank 100%d" / "file"
    arguments = ssh_arguments(GUEST, known_hosts, "root", None, [], [])
    # -G prints the settings that would be used, and connects nowhere
    shown = subprocess.run(["ssh", "-G", *arguments[1:]], capture_output=True, text=True, timeout=20)
    settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines())
    assert shown.returncode == 0, shlex.join(arguments) + shown.stderr
    assert settings["hostkeyalias"] == "terrace-7"
    assert settings["hostname"] == "10.77.0.10"
    assert settings["stricthostkeychecking"] == "accept-new"
    assert "with blank 100%" in settings["userknownhostsfile"]
