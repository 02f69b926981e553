"""Tables for people, JSON and names for programs."""

from __future__ import annotations

import json

import pytest
from cli_process import Run, run_on_terminal
from stand_in_world import World

from terrace.cli import cells


def test_a_table_without_a_terminal_is_plain_and_whole(run: Run, world: World) -> None:
    world.add_vm("test-1", image="a-very-long-image-name-" * 8)
    world.add_vm("test-2", status="stopped", ip=None, ram_mib=2048)
    result = run("vm", "list")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split()[:5] == ["NAME", "ID", "STATUS", "NODE", "IP"]
    assert "a-very-long-image-name-" * 8 in lines[1]
    assert lines[2].split()[:8] == ["test-2", "2", "stopped", "hv1", "-", "1", "2GiB", "10GiB"]
    assert "\x1b" not in result.stdout
    assert len(lines) == 3


def test_a_list_of_nothing_is_its_header(run: Run) -> None:
    assert run("vm", "list").stdout.startswith("NAME")
    assert json.loads(run("vm", "list", "-o", "json").stdout) == []
    assert run("vm", "list", "-o", "name").stdout == ""


def test_json_is_what_the_api_returned(run: Run, world: World) -> None:
    vm = world.add_vm("test-1", labels={"env": "täst"})
    assert json.loads(run("vm", "show", "test-1", "-o", "json").stdout) == vm
    assert json.loads(run("vm", "list", "-o", "json").stdout) == [vm]
    assert json.loads(run("-o", "json", "vm", "show", "1").stdout) == vm


def test_names_are_one_a_line(run: Run, world: World) -> None:
    world.add_vm("b")
    world.add_vm("a")
    assert run("vm", "list", "-o", "name").stdout == "b\na\n"


def test_show_has_every_field(run: Run, world: World) -> None:
    vm = world.add_vm("test-1", labels={"env": "test", "tier": "web"})
    shown = dict(line.split(maxsplit=1) for line in run("vm", "show", "test-1").stdout.splitlines())
    assert shown.keys() == vm.keys()
    assert shown["labels"] == "env=test, tier=web"
    assert shown["error"] == "-"


def test_every_page_is_followed_on_the_same_host(run: Run, world: World) -> None:
    for number in range(250):
        world.add_vm(f"vm-{number}")
    assert len(json.loads(run("vm", "list", "-o", "json").stdout)) == 250
    assert len(world.seen) == 3


def test_a_limit_is_kept_and_not_overfetched(run: Run, world: World) -> None:
    for number in range(250):
        world.add_vm(f"vm-{number}")
    assert len(run("vm", "list", "-o", "name", "--limit", "120").stdout.split()) == 120
    assert [seen.query for seen in world.seen] == ["limit=100", "limit=100&cursor=100"]


def test_filters_reach_every_page(run: Run, world: World) -> None:
    run("vm", "list", "--status", "running", "--node", "hv1", "--label", "a=b", "--label", "c=d")
    assert world.seen[0].query == "status=running&node=hv1&label=a%3Db&label=c%3Dd&limit=100"


def test_a_terminal_gets_colours_unless_refused(env: dict[str, str], world: World) -> None:
    world.add_vm("test-1")
    coloured = run_on_terminal(env, "vm", "list")
    assert "\x1b[32mrunning" in coloured.output
    for plain in (
        run_on_terminal({**env, "NO_COLOR": "1"}, "vm", "list"),
        run_on_terminal(env, "--no-color", "vm", "list"),
    ):
        assert plain.exit_code == 0
        assert "running" in plain.output
        assert "\x1b[3" not in plain.output


def test_text_from_the_api_cannot_steer_a_terminal(run: Run, world: World) -> None:
    world.add_vm("test-1", error="\x1b[2Jgone\nsecond line [red]")
    shown = run("vm", "show", "test-1").stdout
    assert "\x1b" not in shown
    assert "gone second line [red]" in shown


@pytest.mark.parametrize(
    ("value", "shown"), [(512, "512MiB"), (1024, "1GiB"), (1536, "1.5GiB"), (None, "-"), (131072, "128GiB")]
)
def test_memory(value: int | None, shown: str) -> None:
    assert cells.mib(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.0042, "4 ms"), (1.23, "1.2 s"), (185.0, "3 min 5 s")])
def test_durations(value: float, shown: str) -> None:
    assert cells.duration(value) == shown
