"""Volumes, snapshots and images of VMs as a guest sees them; the same on local pools and on Ceph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from guest_login import Fleet, Guest
from polling import until
from public_client import Api, Json
from stack_run import StackRun

pytestmark = pytest.mark.e2e
GIB = 2**30
FLUSHED = 30  # seconds in which a guest under emulation has unplugged, or seen, a disk


@dataclass(frozen=True)
class Cloud:
    """A stack with one kind of storage, and its guest ``disks`` that nobody else uses."""

    storage: str
    stack: StackRun
    api: Api
    guest_of: Fleet


@pytest.fixture(scope="module", params=["dir", "rbd"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    prefix = "" if request.param == "dir" else "rbd_"
    made = Cloud(
        request.param,
        request.getfixturevalue(f"{prefix}stack"),
        request.getfixturevalue(f"{prefix}api"),
        request.getfixturevalue(f"{prefix}guest_of"),
    )
    if made.api.call("GET", "/vms/disks").status_code == 404:
        volumes = [{"name": "inline", "size_gib": 1, "delete_with_vm": True}]
        made.api.create("disks", ssh_keys=["laptop"], disk_gib=2, volumes=volumes)
    return made


def change(api: Api, method: str, path: str, body: Any = None, *, status: int = 200) -> Json:
    answer = api.call(method, path, body, Prefer="wait=60")
    assert answer.status_code == status, answer.text
    return dict(answer.json()) if answer.content else {}


def size_of(guest: Guest, device: str) -> int:
    return int(guest.run(f"cat /sys/block/{device}/size 2>/dev/null || echo 0")) * 512


def put(guest: Guest, device: str, text: str) -> None:
    guest.run(f"printf {text} | dd of=/dev/{device} conv=notrunc,fsync 2>/dev/null")


def read(guest: Guest, device: str, length: int) -> str:
    return guest.run(f"dd if=/dev/{device} bs=1 count={length} iflag=direct 2>/dev/null || dd if=/dev/{device} bs=1"
                     f" count={length} 2>/dev/null")  # fmt: skip


def test_a_volume_of_the_create_call_is_there_at_once(cloud: Cloud) -> None:
    vm, guest = cloud.guest_of("disks")
    assert [volume["name"] for volume in vm["volumes"]] == ["inline"]
    assert size_of(guest, "vdc") == GIB
    put(guest, "vdc", "inline")
    assert read(guest, "vdc", 6) == "inline"
    volume = cloud.api.get("/volumes/inline")
    assert (volume["status"], volume["vm_name"], volume["delete_with_vm"]) == ("in_use", "disks", True)


def test_a_volume_is_plugged_grown_and_unplugged_while_the_guest_runs(cloud: Cloud) -> None:
    api = cloud.api
    _, guest = cloud.guest_of("disks")
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    made = change(api, "POST", "/volumes", {"name": "hot", "size_gib": 1}, status=201)
    assert (made["status"], made["pool"] is None) == ("available", cloud.storage == "dir")
    attached = change(api, "POST", "/volumes/hot/actions/attach", {"vm": "disks"})
    assert attached["status"] == "in_use"
    until(lambda: size_of(guest, "vdd") == GIB, "the guest sees its disk", FLUSHED)
    assert guest.run("cat /sys/block/vdd/serial") == f"volume-{made['id']}"
    put(guest, "vdd", "kept")
    change(api, "POST", "/volumes/hot/actions/resize", {"size_gib": 3})
    until(lambda: size_of(guest, "vdd") == 3 * GIB, "the guest sees its size", FLUSHED)
    again = api.call("POST", "/volumes/hot/actions/attach", {"vm": "disks"})
    assert (again.status_code, again.json()["code"]) == (409, "volume_in_use")
    for path, body, code in (
        ("/volumes/hot", None, "volume_in_use"),
        ("/volumes/hot/actions/resize", {"size_gib": 2}, "size_out_of_range"),
    ):
        refused = api.call("DELETE" if body is None else "POST", path, body)
        assert refused.json()["code"] == code
    change(api, "POST", "/volumes/hot/actions/detach")
    until(lambda: size_of(guest, "vdd") == 0, "the guest has lost its disk", FLUSHED)
    change(api, "POST", "/volumes/hot/actions/attach", {"vm": "disks"})
    until(lambda: size_of(guest, "vdd") == 3 * GIB, "it is back", FLUSHED)
    assert read(guest, "vdd", 4) == "kept"
    change(api, "POST", "/volumes/hot/actions/detach")
    change(api, "DELETE", "/volumes/hot", status=204)
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot


def test_a_snapshot_of_a_running_guest_is_consistent_and_restored(cloud: Cloud) -> None:
    api = cloud.api
    _, guest = cloud.guest_of("disks")
    guest.run("echo old >/root/state; sync")
    put(guest, "vdc", "old-data")
    taken = change(api, "POST", "/vms/disks/snapshots", {"name": "before"}, status=201)
    assert taken["consistency"] == "filesystem"
    assert [disk["volume"] for disk in taken["disks"]] == [None, "inline"]
    guest.run("echo new >/root/state; sync")  # it is not frozen any more
    put(guest, "vdc", "new-data")
    refused = api.call("POST", "/vms/disks/snapshots/before/actions/restore")
    assert (refused.status_code, refused.json()["code"]) == (409, "vm_state")
    assert guest.run("cat /root/state") == "new"
    change(api, "POST", "/vms/disks/snapshots/before/actions/restore", {"force": True})
    assert api.vm("disks")["status"] == "running"
    assert guest.wait("cat /root/state") == "old"
    assert read(guest, "vdc", 8) == "old-data"


def test_an_image_of_a_vm_makes_another_like_it(cloud: Cloud) -> None:
    api = cloud.api
    _, guest = cloud.guest_of("disks")
    guest.wait("echo twin >/root/twin && sync")
    image = change(api, "POST", "/images", {"name": "twin", "vm": "disks"}, status=201)
    assert image["status"] == "available"
    old = change(api, "POST", "/images", {"name": "old", "vm": "disks", "snapshot": "before"}, status=201)
    assert old["checksum"] != image["checksum"]
    change(api, "DELETE", "/vms/disks/snapshots/before", status=204)
    api.create("twin", image="twin", disk_gib=2, ssh_keys=["laptop"])
    in_use = api.call("DELETE", "/images/twin")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "image_in_use")
    _, twin = cloud.guest_of("twin")
    assert twin.run("cat /root/twin; hostname") == "twin\ntwin"
    api.delete("twin")
    for name in ("twin", "old"):
        change(api, "DELETE", f"/images/{name}", status=204)


def test_what_goes_with_the_vm_is_gone_and_the_rest_is_kept(cloud: Cloud) -> None:
    api = cloud.api
    change(api, "POST", "/volumes", {"name": "stays", "size_gib": 1}, status=201)
    change(api, "POST", "/volumes/stays/actions/attach", {"vm": "disks"})
    change(api, "POST", "/vms/disks/snapshots", {"name": "last"}, status=201)
    api.delete("disks")
    assert api.call("GET", "/volumes/inline").status_code == 404
    kept = api.get("/volumes/stays")
    assert (kept["status"], kept["vm"]) == ("available", None)
    change(api, "DELETE", "/volumes/stays", status=204)
    drift = change(api, "POST", f"/nodes/{cloud.stack.settings.hypervisors[0]}/drift/clean")
    assert drift["differences"] == []
