"""Creating, changing and deleting VMs, with their progress."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_process import Run, run_on_terminal
from stand_in_world import World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test@example"


def test_create_sends_what_was_given_and_waits(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(KEY + "\n")
    (tmp_path / "motd").write_text("hello: world\n")
    (tmp_path / "user-data").write_text("#cloud-config\n")
    result = run(
        "vm", "create", "test-1", "--cpu", "2", "--ram", "1G", "--disk", "20", "--image", "tiny",
        "--key", "laptop", "--key", str(tmp_path / "id.pub"), "--key", KEY, "--network", "default",
        "--user-data", str(tmp_path / "user-data"), "--file", f"{tmp_path}/motd:/etc/motd:644",
        "--label", "env=test", "--password-hash", "$6$x", "-o", "json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    post = world.asked("POST")[0]
    assert json.loads(post.body) == {
        "name": "test-1", "cpu": 2, "ram_mib": 1024, "disk_gib": 20, "image": "tiny", "network": "default",
        "ssh_keys": ["laptop", KEY, KEY], "user_data": "#cloud-config\n", "labels": {"env": "test"},
        "files": [{"path": "/etc/motd", "content": "hello: world\n", "mode": "0644"}],
        "password_hash": "$6$x",
    }  # fmt: skip
    assert post.headers["prefer"] == "respond-async"
    assert json.loads(result.stdout)["status"] == "running"
    assert result.stderr == ("vm create test-1: claim 4 ms, volume 4 ms, start 4 ms, succeeded in 1.2 s\n")


def test_only_the_name_has_no_default(run: Run, world: World) -> None:
    assert run("vm", "create", "test-1").exit_code == 0
    assert json.loads(world.asked("POST")[0].body) == {"name": "test-1"}


def test_the_key_of_vm_ssh_is_the_default(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nobody will be able to log in" in run("vm", "create", "test-1", "--no-wait").stderr
    (tmp_path / "id.pub").write_text(KEY)
    monkeypatch.setenv("TERRACE_SSH_KEY", str(tmp_path / "id"))
    result = run("vm", "create", "test-2", "--no-wait")
    assert json.loads(world.asked("POST")[-1].body)["ssh_keys"] == [KEY]
    assert "nobody" not in result.stderr


def test_a_private_key_never_leaves(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    result = run("vm", "create", "test-1", "--key", str(tmp_path / "id"))
    assert result.exit_code == 2
    assert "id.pub" in result.stderr
    assert world.seen == []


def test_user_data_from_stdin(run: Run, world: World) -> None:
    assert run("vm", "create", "test-1", "--user-data", "-", stdin="#!/bin/sh\n").exit_code == 0
    assert json.loads(world.asked("POST")[0].body)["user_data"] == "#!/bin/sh\n"


@pytest.mark.parametrize(
    "option",
    [("--ram", "lots"), ("--ram", "0"), ("--disk", "10M"), ("--disk", "1.5G"), ("--label", "x"),
     ("--file", "a"), ("--file", "none:/etc/motd"), ("--user-data", "none"), ("--key", "none.pub"),
     ("--cpu", "x"), ("--no-wait", "--wait-ready")],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_sent(run: Run, world: World, option: tuple[str, ...]) -> None:
    result = run("vm", "create", "test-1", *option)
    assert result.exit_code == 2
    assert world.seen == []


def test_no_wait_answers_at_once(run: Run, world: World) -> None:
    result = run("vm", "create", "test-1", "--no-wait", "-o", "json")
    assert json.loads(result.stdout)["status"] == "creating"
    assert len(world.seen) == 1


def test_wait_ready_waits_for_the_guest(run: Run, world: World) -> None:
    world.ready_after_looks = 4
    result = run("vm", "create", "test-1", "--wait-ready", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ready_at"] is not None


def test_a_failed_create(run: Run, world: World) -> None:
    world.ends = {"state": "failed", "error": {"code": "no_capacity", "detail": "The pool is full."}}
    result = run("vm", "create", "test-1", "-o", "json")
    assert result.exit_code == 1
    assert result.stdout == ""
    for part in ("The pool is full.", "17 (vm_create of test-1) failed", "req-op", "terrace node list"):
        assert part in result.stderr


def test_a_time_out_says_how_to_go_on(run: Run, world: World) -> None:
    world.looks_until_done = 10**6
    result = run("vm", "create", "test-1", "--timeout", "0.3")
    assert result.exit_code == 6
    assert "terrace op wait 17" in result.stderr


def test_ctrl_c_says_that_the_operation_goes_on(env: dict[str, str], world: World) -> None:
    world.looks_until_done = 10**6
    result = run_on_terminal(env, "vm", "create", "test-1", answer_after=("claim", b"\x03"))
    assert result.exit_code == 130
    assert "The operation goes on: `terrace op wait 17`" in result.output.replace("\r\n", " ")
    assert "Traceback" not in result.output


def test_steps_are_shown_live_on_a_terminal(env: dict[str, str], world: World) -> None:
    result = run_on_terminal(env, "vm", "create", "test-1")
    assert result.exit_code == 0
    for line in (
        "claim        4 ms",
        "volume       4 ms",
        "vm create test-1 succeeded in 1.2 s",
        "terrace vm ssh test-1",
    ):
        assert line in result.output


def test_stop_tells_how(run: Run, world: World) -> None:
    world.add_vm("test-1")
    world.ends = {"result": {"method": "acpi"}}
    result = run("vm", "stop", "test-1", "--grace", "5")
    assert result.exit_code == 0
    assert json.loads(world.asked("POST")[0].body) == {"timeout_s": 5}
    assert "method=acpi" in result.stderr
    assert "stopped" in result.stdout


@pytest.mark.parametrize("action", ["start", "stop", "reboot", "reset", "poweroff"])
def test_actions(run: Run, world: World, action: str) -> None:
    world.add_vm("test-1", status="stopped" if action == "start" else "running")
    result = run("vm", action, "test-1", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert world.asked("POST")[0].path == f"vms/test-1/actions/{action}"
    assert json.loads(result.stdout)["status"] == ("stopped" if action in ("stop", "poweroff") else "running")


def test_what_is_already_so_is_success(run: Run, world: World) -> None:
    world.add_vm("test-1")
    result = run("vm", "start", "test-1")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_several_at_once_and_one_missing(run: Run, world: World) -> None:
    world.add_vm("a")
    world.add_vm("b")
    result = run("vm", "stop", "a", "nope", "b", "-o", "json")
    assert result.exit_code == 3
    assert [vm["status"] for vm in json.loads(result.stdout)] == ["stopped", "stopped"]
    assert "There is no vms 'nope'." in result.stderr


def test_a_superseded_stop(run: Run, world: World) -> None:
    world.add_vm("test-1")
    world.ends = {"state": "superseded"}
    result = run("vm", "stop", "test-1")
    assert result.exit_code == 1
    assert "terrace op list --vm test-1" in result.stderr


def test_delete(run: Run, world: World) -> None:
    world.add_vm("a")
    world.add_vm("b")
    result = run("vm", "delete", "-y", "a", "b", "a")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "Deleted 2 of 2." in result.stderr
    assert world.vms == {}


def test_delete_without_a_terminal_needs_yes(run: Run, world: World) -> None:
    world.add_vm("a")
    result = run("vm", "delete", "a")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert world.seen == []


@pytest.mark.parametrize(("answer", "exit_code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\x03", 130, 1)])
def test_delete_asks_on_a_terminal(env: dict[str, str], world: World, answer: bytes, exit_code: int, left: int) -> None:
    world.add_vm("a")
    result = run_on_terminal(env, "vm", "delete", "a", answer_after=("Delete VM a?", answer))
    assert result.exit_code == exit_code, result.output
    assert len(world.vms) == left
