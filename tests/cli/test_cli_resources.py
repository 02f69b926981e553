"""Images, keys, nodes, networks and operations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cli_process import Run, run_on_terminal
from stand_in_world import World

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test@example"


@pytest.mark.parametrize(("content", "disk_format"), [(b"QFI\xfb" + bytes(3_000_000), "qcow2"), (b"raw", "raw")])
def test_an_image_is_uploaded_with_its_checksum(
    run: Run, world: World, tmp_path: Path, content: bytes, disk_format: str
) -> None:
    file = tmp_path / "disk"
    file.write_bytes(content)
    result = run("image", "create", "mine", "--file", str(file), "-o", "json")
    assert result.exit_code == 0, result.stderr
    sent = world.asked("POST")[0]
    assert sent.body == content
    assert sent.headers["content-length"] == str(len(content))
    image = json.loads(result.stdout)
    assert image["checksum"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert image["format"] == disk_format


def test_an_upload_has_a_bar_on_a_terminal(env: dict[str, str], world: World, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(3_000_000))
    result = run_on_terminal(env, "image", "create", "mine", "--file", str(tmp_path / "disk"))
    assert result.exit_code == 0
    assert "checksum" in result.output
    assert "3.0/3.0 MB" in result.output


def test_a_wrong_checksum_is_found_before_sending(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x")
    result = run("image", "create", "mine", "--file", str(tmp_path / "disk"), "--checksum", "sha256:00")
    assert result.exit_code == 1
    assert world.seen == []


def test_an_image_from_a_url_is_followed(run: Run, world: World) -> None:
    result = run(
        "image",
        "create",
        "fetched",
        "--url",
        "https://images.example/x.qcow2",
        "--format",
        "qcow2",
        "-o",
        "json",
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(world.asked("POST")[0].body) == {
        "name": "fetched",
        "url": "https://images.example/x.qcow2",
        "format": "qcow2",
    }
    assert json.loads(result.stdout)["status"] == "available"


@pytest.mark.parametrize("options", [(), ("--file", "a", "--url", "b"), ("--file", "none")])
def test_an_image_has_one_source(run: Run, world: World, options: tuple[str, ...]) -> None:
    assert run("image", "create", "mine", *options).exit_code == 2
    assert world.seen == []


def test_image_list(run: Run, world: World) -> None:
    world.images["tiny"] = {"id": 1, "name": "tiny", "status": "available", "format": "qcow2",
                            "size_bytes": 20_000_000, "min_disk_gib": 1}  # fmt: skip
    assert run("image", "list").stdout.splitlines()[1].split()[:6] == [
        "tiny", "1", "available", "qcow2", "19.07MiB", "1GiB",
    ]  # fmt: skip


def test_a_key_is_stored_from_a_file_or_stdin(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(PUBLIC_KEY + "\n")
    assert run("key", "create", "laptop", str(tmp_path / "id.pub")).exit_code == 0
    assert run("key", "create", "laptop", "-", stdin=PUBLIC_KEY).exit_code == 0
    for sent in world.asked("POST"):
        assert json.loads(sent.body) == {"name": "laptop", "public_key": PUBLIC_KEY}
    result = run("key", "create", "laptop", "-", stdin="-----BEGIN OPENSSH PRIVATE KEY-----")
    assert result.exit_code == 2
    assert len(world.seen) == 2


def test_a_node_shows_what_can_be_claimed(run: Run, world: World) -> None:
    world.nodes["hv1"] = {
        "name": "hv1", "state": "active", "cpu": 2, "cpu_overcommit": 4.0, "cpu_claimed": 1, "ram_mib": 8192,
        "ram_overcommit": 1.0, "ram_claimed_mib": 512, "disk_gib": 40, "disk_overcommit": 2.0,
        "disk_claimed_gib": 10, "vms": 1, "storage": "rbd", "pool_used_bytes": 3 * 2**30, "last_seen": None,
    }  # fmt: skip
    row = run("node", "list").stdout.splitlines()[1].split()
    assert row == ["hv1", "active", "1", "1/8", "512MiB/8GiB", "10GiB/80GiB", "rbd", "3GiB", "-"]
    assert json.loads(run("node", "drain", "hv1", "-o", "json").stdout)["state"] == "draining"
    assert run("node", "undrain", "hv1").stdout.splitlines()[1].split()[1] == "active"
    assert run("node", "maintenance", "hv9").exit_code == 3


def test_networks(run: Run, world: World) -> None:
    options = ("--bridge", "br1", "--subnet", "10.78.0.0/16", "--gateway", "10.78.0.1", "--dns", "9.9.9.9")
    assert run("network", "create", "lab", *options).exit_code == 0
    assert json.loads(world.asked("POST")[0].body) == {
        "name": "lab", "bridge": "br1", "dhcp": "terrace", "subnet": "10.78.0.0/16", "gateway": "10.78.0.1",
        "dns": ["9.9.9.9"],
    }  # fmt: skip
    assert run("network", "create", "lan", "--bridge", "br0", "--dhcp", "external").exit_code == 0
    assert json.loads(world.asked("POST")[1].body) == {"name": "lan", "bridge": "br0", "dhcp": "external"}
    assert run("network", "create", "lan", "--bridge", "br0").exit_code == 2
    assert run("network", "create", "lan", "--bridge", "br0", "--dhcp", "external", "--dns", "1.1.1.1").exit_code == 2


@pytest.mark.parametrize("kind", ["image", "key", "network"])
def test_delete_and_show(run: Run, world: World, kind: str) -> None:
    {"image": world.images, "key": world.keys, "network": world.networks}[kind]["one"] = {
        "id": 5,
        "name": "one",
    }
    assert json.loads(run(kind, "show", "one", "-o", "json").stdout) == {"id": 5, "name": "one"}
    assert run(kind, "list", "-o", "name").stdout == "one\n"
    assert run(kind, "delete", "one").exit_code == 2
    result = run(kind, "delete", "-y", "one")
    assert result.exit_code == 0
    assert result.stderr == "Deleted one.\n"
    assert run(kind, "delete", "-y", "two").exit_code == 3


def test_operations(run: Run, world: World) -> None:
    vm = world.add_vm("test-1")
    world.add_operation("vm_stop", vm)
    assert "vm_stop" in run("op", "list", "--vm", "test-1").stdout
    assert world.seen[-1].query == "vm=test-1&limit=100"
    shown = run("op", "show", "17").stdout
    assert "STEP" in shown
    assert "claim" in shown
    waited = run("op", "wait", "17", "-o", "json")
    assert waited.exit_code == 0
    assert json.loads(waited.stdout)["state"] == "succeeded"
    assert run("op", "wait", "99").exit_code == 3


def test_a_failed_operation_fails_the_wait(run: Run, world: World) -> None:
    world.add_operation("vm_stop", world.add_vm("test-1"))
    world.ends = {"state": "stuck", "error": {"code": "operation_failed", "detail": "The disk would not go."}}
    result = run("op", "wait", "17")
    assert result.exit_code == 1
    assert "The disk would not go." in result.stderr
    assert "terrace vm delete test-1" in result.stderr


def test_waiting_has_an_end(run: Run, world: World) -> None:
    world.add_operation("vm_stop", world.add_vm("test-1"))
    world.looks_until_done = 10**6
    assert run("op", "wait", "17", "--timeout", "0.2").exit_code == 6
