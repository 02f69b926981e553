"""Volumes, snapshots, images of VMs, and the drift of pools."""

from __future__ import annotations

import json

import pytest
from cli_process import Run, run_on_terminal
from stand_in_world import BORN, World, problem

ORPHAN = {"name": "0d4f7a52-root", "kind": "orphan", "first_seen": BORN, "last_seen": BORN}
FOREIGN = {"name": "5b0c91de-data", "kind": "foreign", "first_seen": BORN, "last_seen": BORN}


def bodies(world: World) -> list[object]:
    return [json.loads(sent.body) if sent.body else None for sent in world.asked("POST")]


def test_a_volume_is_created(run: Run, world: World) -> None:
    result = run("volume", "create", "data", "--size", "1T", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert bodies(world) == [{"name": "data", "size_gib": 1024}]
    assert json.loads(result.stdout)["status"] == "available"
    assert result.stderr.startswith("volume create data: claim 4 ms,")


def test_a_volume_is_created_and_attached(run: Run, world: World) -> None:
    world.add_vm("web-1")
    result = run("volume", "create", "data", "--size", "20", "--vm", "web-1", "--delete-with-vm", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert [sent.path for sent in world.asked("POST")] == ["volumes", "volumes/1/actions/attach"]
    assert bodies(world)[1] == {"vm": "web-1", "delete_with_vm": True}
    volume = json.loads(result.stdout)
    assert (volume["vm_name"], volume["device"]) == ("web-1", "/dev/disk/by-id/virtio-volume-1")
    assert "volume attach data:" in result.stderr


def test_nothing_is_created_for_a_vm_that_is_not_there(run: Run, world: World) -> None:
    result = run("volume", "create", "data", "--size", "20", "--vm", "web-9")
    assert result.exit_code == 3
    assert "terrace vm list" in result.stderr
    assert world.volumes == {}


def test_a_volume_that_could_not_be_attached_is_told(run: Run, world: World) -> None:
    vm = world.add_vm("web-1")
    world.add_operation("vm_stop", vm)
    result = run("volume", "create", "data", "--size", "20", "--vm", "web-1")
    assert result.exit_code == 1
    assert "Volume data was created; `terrace volume show data` tells" in result.stderr
    assert "terrace op list --vm VM" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "data"),
        ("create", "data", "--size", "10M"),
        ("create", "data", "--size", "0"),
        ("create", "data", "--size", "1", "--delete-with-vm"),
        ("create", "data", "--size", "1", "--vm", "web-1", "--no-wait"),
        ("resize", "data", "+5"),
        ("attach", "data"),
    ],
)
def test_mistakes_with_volumes_are_found_before_anything_is_sent(
    run: Run, world: World, arguments: tuple[str, ...]
) -> None:
    assert run("volume", *arguments).exit_code == 2
    assert world.seen == []


def test_volumes_are_listed_and_shown(run: Run, world: World) -> None:
    volume = world.add_volume("data", world.add_vm("web-1"))
    world.add_volume("spare")
    rows = [line.split()[:7] for line in run("volume", "list").stdout.splitlines()]
    assert rows[1] == ["data", "1", "in_use", "20GiB", "web-1", "/dev/disk/by-id/virtio-volume-1", "hv1"]
    assert rows[2] == ["spare", "2", "available", "20GiB", "-", "-", "-"]
    assert run("volume", "list", "--vm", "web-1", "--status", "in_use", "-o", "name").stdout == "data\n"
    assert world.seen[-1].query == "vm=web-1&status=in_use&limit=100"
    assert json.loads(run("volume", "show", "data", "-o", "json").stdout) == volume
    result = run("volume", "show", "nope")
    assert result.exit_code == 3
    assert "terrace volume list" in result.stderr


def test_a_volume_comes_and_goes(run: Run, world: World) -> None:
    world.add_vm("web-1")
    world.add_volume("data")
    assert run("volume", "attach", "data", "web-1").exit_code == 0
    assert world.volumes["data"]["status"] == "in_use"
    resized = run("volume", "resize", "data", "40G", "-o", "json")
    assert json.loads(resized.stdout)["size_gib"] == 40
    refused = run("volume", "delete", "-y", "data")
    assert refused.exit_code == 1
    assert "terrace volume show data" in refused.stderr
    assert "available" in run("volume", "detach", "data").stdout
    assert bodies(world) == [{"vm": "web-1"}, {"size_gib": 40}, None]
    gone = run("volume", "delete", "-y", "data")
    assert (gone.exit_code, gone.stdout, world.volumes) == (0, "", {})
    assert "Deleted data." in gone.stderr


def test_volumes_of_one_vm_are_detached_in_turn(run: Run, world: World) -> None:
    vm = world.add_vm("web-1")
    world.add_volume("a", vm)
    world.add_volume("b", vm)
    result = run("volume", "detach", "a", "nope", "b")
    assert result.exit_code == 3
    assert [volume["status"] for volume in world.volumes.values()] == ["available", "available"]


def test_a_guest_that_holds_on_to_its_disk(run: Run, world: World) -> None:
    world.add_volume("data", world.add_vm("web-1"))
    world.ends = {"state": "failed", "error": {"code": "device_busy", "detail": "The guest does not let the disk go."}}
    result = run("volume", "detach", "data")
    assert result.exit_code == 1
    for part in ("does not let the disk go", "volume_detach of web-1", "Of a stopped VM"):
        assert part in result.stderr


def test_a_stuck_operation_on_a_volume_says_nothing_of_deleting_its_vm(run: Run, world: World) -> None:
    world.add_volume("data", world.add_vm("web-1"))
    world.ends = {"state": "stuck"}
    result = run("volume", "resize", "data", "40")
    assert "terrace volume show 1" in result.stderr
    assert "vm delete" not in result.stderr


def test_volumes_ask_before_they_are_deleted(run: Run, env: dict[str, str], world: World) -> None:
    world.add_volume("a")
    world.add_volume("b")
    assert run("volume", "delete", "a", "b").exit_code == 2
    assert world.seen == []
    result = run_on_terminal(env, "volume", "delete", "a", "b", answer_after=("Delete volume a, b?", b"y\n"))
    assert result.exit_code == 0, result.output
    assert world.volumes == {}
    assert "volume delete a succeeded" in result.output


def test_a_vm_is_created_with_volumes_and_shows_them(run: Run, world: World) -> None:
    result = run("vm", "create", "web-1", "--volume", "data:20", "--volume", "scratch:1T:delete")
    assert result.exit_code == 0, result.stderr
    assert bodies(world) == [
        {
            "name": "web-1",
            "volumes": [
                {"name": "data", "size_gib": 20},
                {"name": "scratch", "size_gib": 1024, "delete_with_vm": True},
            ],
        }
    ]
    fields, table = run("vm", "show", "web-1").stdout.split("\n\n")
    assert result.stdout.endswith(table)
    assert "virtio" not in fields
    assert [line.split() for line in table.splitlines()] == [
        ["VOLUME", "ID", "SIZE", "DEVICE"],
        ["data", "1", "20GiB", "/dev/disk/by-id/virtio-volume-1"],
        ["scratch", "2", "20GiB", "/dev/disk/by-id/virtio-volume-2"],
    ]
    shown = json.loads(run("vm", "show", "web-1", "-o", "json").stdout)
    assert shown["volumes"] == world.vms["web-1"]["volumes"]


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        ("data", "--volume data is not NAME:SIZE[:delete]."),
        (":20", "--volume :20 is not NAME:SIZE[:delete]."),
        ("data:20:keep", "--volume data:20:keep is not NAME:SIZE[:delete]."),
        ("data:10M", "In --volume data:10M, 10M is not a size."),
    ],
)
def test_a_badly_spelled_volume_is_told(run: Run, world: World, volume: str, told: str) -> None:
    result = run("vm", "create", "web-1", "--volume", volume)
    assert result.exit_code == 2
    assert told in result.stderr
    assert world.seen == []


def test_a_snapshot_is_taken_listed_and_shown(run: Run, world: World) -> None:
    world.add_snapshot("other", world.add_vm("db-1"))
    world.add_vm("web-1")
    result = run("snapshot", "create", "web-1", "before")
    assert result.exit_code == 0, result.stderr
    assert (world.asked("POST")[0].path, bodies(world)) == ("vms/web-1/snapshots", [{"name": "before"}])
    assert "snapshot create before:" in result.stderr
    assert run("snapshot", "list", "-o", "name").stdout == "other\nbefore\n"
    row = run("snapshot", "list", "web-1").stdout.splitlines()[1].split()
    assert row[:6] == ["before", "2", "web-1", "available", "filesystem", "1"]
    shown = run("snapshot", "show", "web-1", "before")
    assert shown.stdout == result.stdout
    assert shown.stdout.splitlines()[-1].split() == ["system", "10GiB"]


@pytest.mark.parametrize(("vm", "name"), [("web-9", "before"), ("web-1", "nope")])
def test_a_snapshot_that_is_not_there(run: Run, world: World, vm: str, name: str) -> None:
    world.add_vm("web-1")
    result = run("snapshot", "show", vm, name)
    assert result.exit_code == 3
    assert "terrace snapshot list" in result.stderr


def test_a_snapshot_is_restored(run: Run, world: World) -> None:
    world.add_snapshot("before", world.add_vm("web-1"))
    refused = run("snapshot", "restore", "web-1", "before", "--yes")
    assert refused.exit_code == 1
    assert "restore with force" in refused.stderr
    result = run("snapshot", "restore", "web-1", "before", "--yes", "--force", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert bodies(world) == [None, {"force": True}]
    assert json.loads(result.stdout)["name"] == "before"


def test_nothing_is_restored_unasked(run: Run, env: dict[str, str], world: World) -> None:
    world.add_snapshot("before", world.add_vm("web-1", status="stopped"))
    result = run("snapshot", "restore", "web-1", "before")
    assert result.exit_code == 2
    assert "whether to restore" in result.stderr
    question = "Restore before, and lose what web-1 has written since?"
    refused = run_on_terminal(env, "snapshot", "restore", "web-1", "before", answer_after=(question, b"n\n"))
    assert refused.exit_code == 1
    assert "Nothing was restored." in refused.output
    assert world.asked("POST") == []


def test_snapshots_of_a_vm_are_deleted_in_turn(run: Run, world: World) -> None:
    vm = world.add_vm("web-1")
    for name in ("a", "b"):
        world.add_snapshot(name, vm)
    assert run("snapshot", "delete", "web-1", "a").exit_code == 2
    assert run("snapshot", "delete", "web-1", "-y", "--no-wait", "a", "b").exit_code == 2
    assert world.seen == []
    result = run("snapshot", "delete", "web-1", "-y", "a", "b")
    assert result.exit_code == 0, result.stderr
    assert world.snapshots == {}
    assert "Deleted 2 of 2." in result.stderr


def test_an_image_is_made_of_a_vm(run: Run, world: World) -> None:
    world.add_vm("web-1")
    result = run("image", "create", "web", "--from-vm", "web-1", "--snapshot", "before", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert bodies(world) == [{"name": "web", "vm": "web-1", "snapshot": "before"}]
    assert json.loads(result.stdout)["status"] == "available"
    assert "image capture web:" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--from-vm", "web-1", "--url", "https://images.example/x"),
        ("--from-vm", "web-1", "--format", "raw"),
        ("--from-vm", "web-1", "--checksum", "sha256:00"),
        ("--url", "https://images.example/x", "--snapshot", "before"),
    ],
)
def test_an_image_of_a_vm_has_no_other_source(run: Run, world: World, options: tuple[str, ...]) -> None:
    assert run("image", "create", "web", *options).exit_code == 2
    assert world.seen == []


def test_drift_is_shown_and_cleaned(run: Run, world: World) -> None:
    world.nodes["hv1"] = {"name": "hv1"}
    world.differences = [ORPHAN, FOREIGN]
    shown = run("node", "drift", "hv1")
    assert shown.exit_code == 0
    table = shown.stdout.split("\n\n")[1].splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["0d4f7a52-root", "orphan"], ["5b0c91de-data", "foreign"]]
    assert run("node", "drift", "hv1", "-o", "name").stdout == "0d4f7a52-root\n5b0c91de-data\n"
    cleaned = run("node", "drift", "hv1", "--clean", "-o", "json")
    assert cleaned.exit_code == 0, cleaned.stderr
    assert json.loads(cleaned.stdout)["differences"] == [FOREIGN]
    assert run("node", "drift", "hv9").exit_code == 3


def test_a_pool_at_work_is_not_cleaned(run: Run, world: World) -> None:
    world.nodes["hv1"] = {"name": "hv1"}
    world.faults.append(lambda: problem(409, "pool_busy", "An operation may be at work in the pool."))
    result = run("node", "drift", "hv1", "--clean")
    assert result.exit_code == 1
    assert "terrace op list" in result.stderr
