"""Exit codes, and messages that say what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from cli_process import Run
from stand_in_world import World, cut, problem


def test_without_a_url_it_says_where_to_get_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERRACE_URL")
    result = run("vm", "list")
    assert result.exit_code == 2
    assert "TERRACE_URL is not set" in result.stderr
    assert ". var/env" in result.stderr


@pytest.mark.parametrize("url", ["cloud.example.org", "ftp://x", "http://", "http://x:port"])
def test_a_malformed_url_is_wrong_usage(run: Run, url: str) -> None:
    assert run("--url", url, "vm", "list").exit_code == 2


def test_a_url_may_end_like_the_api(run: Run, world: World, env: dict[str, str]) -> None:
    assert run("--url", env["TERRACE_URL"] + "/api/v1/", "vm", "list").exit_code == 0


def test_without_a_token_it_is_not_authenticated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERRACE_TOKEN")
    assert run("vm", "list").exit_code == 5


def test_an_unknown_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_TOKEN", "wrong")
    result = run("vm", "list")
    assert result.exit_code == 5
    assert "TERRACE_TOKEN" in result.stderr


def test_a_token_file_comes_before_the_variable(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("token-of-a-test\n")
    monkeypatch.setenv("TERRACE_TOKEN", "wrong")
    assert run("--token-file", str(file), "vm", "list").exit_code == 0
    assert run("--token-file", str(tmp_path / "none"), "vm", "list").exit_code == 2
    monkeypatch.delenv("TERRACE_TOKEN")
    monkeypatch.setenv("TERRACE_TOKEN_FILE", str(file))
    assert run("vm", "list").exit_code == 0


def test_nothing_listens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terrace.cli.client.time.sleep", lambda _: None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run("--url", f"http://127.0.0.1:{unused.getsockname()[1]}", "vm", "list")
    assert result.exit_code == 4
    assert "Cannot reach the API" in result.stderr
    assert "scripts/stack status" in result.stderr
    assert result.stdout == ""


def test_not_found(run: Run, world: World) -> None:
    result = run("vm", "show", "nope", "-o", "json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "There is no vms 'nope'." in result.stderr
    assert "terrace vm list" in result.stderr


def test_a_problem_shows_fields_code_and_request(run: Run, world: World) -> None:
    errors = [{"field": "cpu", "message": "must be at most 8"}]
    world.faults.append(lambda: problem(422, "size_out_of_range", "A size is out of range.", errors=errors))
    result = run("vm", "create", "test-1", "--cpu", "99")
    assert result.exit_code == 1
    for part in (
        "A size is out of range.",
        "cpu",
        "must be at most 8",
        "size_out_of_range",
        "req-1",
        "node list",
    ):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "hint"),
    [
        (403, "forbidden", 5, "another token"),
        (409, "vm_busy", 1, "terrace op list --vm test-1"),
        (507, "no_capacity", 1, "terrace node list"),
        (500, "internal_error", 1, "request id"),
    ],
)
def test_hints(run: Run, world: World, status: int, code: str, exit_code: int, hint: str) -> None:
    world.add_vm("test-1")
    world.faults.append(lambda: problem(status, code, "A sentence."))
    result = run("vm", "stop", "test-1")
    assert result.exit_code == exit_code
    assert hint in result.stderr


@pytest.mark.parametrize("fault", [cut, lambda: problem(503, "service_unavailable", "Later.", retry_after=0)])
def test_a_change_is_sent_again_under_its_key(run: Run, world: World, fault: object) -> None:
    world.faults += [fault, fault]  # type: ignore[list-item]
    result = run("vm", "create", "test-1", "--no-wait", "-o", "json")
    assert result.exit_code == 0, result.stderr
    posts = world.asked("POST")
    assert len(posts) == 3
    assert len({post.headers["idempotency-key"] for post in posts}) == 1
    assert "Trying again" in result.stderr
    assert json.loads(result.stdout)["name"] == "test-1"


def test_two_creates_have_two_keys(run: Run, world: World) -> None:
    run("vm", "create", "a", "--no-wait")
    run("vm", "create", "b", "--no-wait")
    assert len({post.headers["idempotency-key"] for post in world.asked("POST")}) == 2


def test_retry_after_is_honoured(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("terrace.cli.client.time.sleep", slept.append)
    world.faults += [lambda: problem(503, "service_unavailable", "Later.", retry_after=3)] * 5
    result = run("vm", "list")
    assert result.exit_code == 4
    assert slept == [3.0] * 4


def test_a_refusal_is_not_repeated(run: Run, world: World) -> None:
    world.add_vm("test-1")
    assert run("vm", "create", "test-1").exit_code == 1
    assert len(world.seen) == 1


def test_another_server_is_recognized(run: Run, world: World) -> None:
    from starlette.responses import HTMLResponse, RedirectResponse

    world.faults.append(lambda: HTMLResponse("<h1>It works!</h1>"))
    result = run("vm", "list")
    assert result.exit_code == 4
    assert "does not speak Terrace's API" in result.stderr
    world.faults.append(lambda: RedirectResponse("https://elsewhere.example/"))
    assert "https://elsewhere.example/" in run("vm", "list").stderr


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_cannot_become_another_path(run: Run, world: World, name: str) -> None:
    assert run("vm", "delete", "-y", name).exit_code == 2
    assert world.seen == []


def test_a_name_is_quoted(run: Run, world: World) -> None:
    run("vm", "show", "a/../b?c")
    assert world.seen[0].path == "vms/a/../b?c"


@pytest.mark.parametrize(
    "arguments", [("vm", "list", "-o", "xml"), ("vm", "creat"), ("vm", "create"), ("op", "show", "x")]
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
