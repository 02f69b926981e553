"""A stack on a Ceph cluster of which parts die, hang or fill up."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from guest_login import Fleet
from polling import until
from public_client import Api
from stack_run import StackRun

from terrace.stack import commands
from terrace.stack.ceph_cluster import CephCluster

pytestmark = pytest.mark.e2e
# far above what is bounded: a refusal, a claim's wait, the cluster's own time to notice
SOON_S = 30.0
RECOVERY_S = 90.0


def ceph(cluster: CephCluster, *words: str) -> str:
    return commands.run("ceph", "--conf", str(cluster.conf), *words)


def rbd(cluster: CephCluster, *words: str) -> str:
    return commands.run("rbd", "--conf", str(cluster.conf), *words)


@pytest.fixture(scope="module")
def guest(rbd_api: Api, rbd_guest_of: Fleet) -> Iterator[Any]:
    """A guest that runs on RBD all the while."""
    rbd_api.create("witness", ssh_keys=["laptop"], disk_gib=2)
    yield rbd_guest_of("witness")[1]
    rbd_api.delete("witness")


def test_a_guest_runs_on_the_pool_and_no_key_is_seen(
    rbd_api: Api, rbd_stack: StackRun, rbd_cluster: CephCluster, guest: Any
) -> None:
    vm = rbd_api.vm("witness")
    xml = rbd_stack.virsh(vm["node"], "dumpxml", f"terrace-{vm['id']}")
    uuid = rbd_stack.domain_uuid(vm)
    assert f"name='libvirt-pool/{uuid}-root'" in xml
    assert "protocol='rbd'" in xml
    assert "error_policy='stop'" in xml
    assert "discard='unmap'" in xml
    assert "cache='writeback'" in xml
    assert "libvirt-pool" in rbd_stack.virsh(vm["node"], "pool-list", "--name").split()
    key = ceph(rbd_cluster, "auth", "print-key", "client.terrace").strip()
    assert len(key) > 20
    told = [path.read_text(errors="replace") for path in rbd_stack.layout.log.rglob("*.log")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told.append((process / "cmdline").read_text(errors="replace"))
        except OSError:  # it has just ended
            continue
    assert not any(key in text for text in told)


def test_one_osd_dies(rbd_api: Api, rbd_cluster: CephCluster, guest: Any) -> None:
    rbd_cluster.kill("osd.1", signal.SIGKILL)
    try:
        guest.run("echo alive >/root/alive; sync", timeout_s=SOON_S * 2)
        rbd_api.create("despite", ssh_keys=["laptop"])
        rbd_api.delete("despite")
    finally:
        rbd_cluster.start("osd.1")


def test_the_whole_cluster_is_away_for_a_while(rbd_api: Api, rbd_cluster: CephCluster, guest: Any) -> None:
    daemons = [*rbd_cluster.settings.daemons]
    began = rbd_api.call("POST", "/vms", {"name": "patient"}, Prefer="respond-async")
    for daemon in daemons:
        rbd_cluster.kill(daemon, signal.SIGSTOP)
    try:
        assert began.status_code == 202

        numbers = itertools.count()

        def refused() -> httpx.Response | None:
            before = time.monotonic()
            # one that is accepted before a node has noticed is made when the cluster is back
            answer = rbd_api.call("POST", "/vms", {"name": f"late-{next(numbers)}"}, Prefer="wait=2")
            assert time.monotonic() - before < SOON_S
            assert rbd_api.call("GET", "/vms").status_code == 200
            return answer if answer.status_code == 503 else None

        answer = until(refused, "creates are refused", SOON_S)
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        for method, path, body in (
            ("POST", "/volumes", {"name": "late", "size_gib": 1}),
            ("POST", "/vms/witness/snapshots", {"name": "late"}),
            ("DELETE", "/vms/witness", None),
        ):
            assert rbd_api.call(method, path, body, Prefer="wait=5").status_code == 503
    finally:
        for daemon in daemons:
            rbd_cluster.start(daemon)
    ended = rbd_api.wait_operation(began.headers["location"].rpartition("/")[2], RECOVERY_S)
    assert ended["state"] == "succeeded", ended
    guest.wait("echo back >/root/back; sync", RECOVERY_S)
    for vm in rbd_api.get("/vms"):
        if vm["name"] != "witness":
            rbd_api.wait_vm(vm["name"], RECOVERY_S, status="running")
            rbd_api.delete(vm["name"])


def test_a_full_pool(rbd_api: Api, rbd_cluster: CephCluster, guest: Any) -> None:
    guest.run("echo before >/root/before; sync")
    ceph(rbd_cluster, "osd", "pool", "set-quota", "libvirt-pool", "max_bytes", "4096")
    try:
        until(lambda: "full" in ceph(rbd_cluster, "health", "detail"), "the pool is full", RECOVERY_S)

        def refused() -> httpx.Response | None:
            answer = rbd_api.call("POST", "/vms", {"name": "no-room"}, Prefer="wait=60")
            return answer if answer.status_code == 507 else None

        answer = until(refused, "creates are refused", RECOVERY_S)
        assert answer.json()["code"] in ("pool_full", "no_capacity")
        assert rbd_api.call("GET", "/vms/no-room").status_code == 404
        upload = rbd_api.call("POST", "/images", {"name": "no-room", "vm": "witness"}, Prefer="wait=60")
        assert upload.status_code == 507, upload.text
        assert rbd_api.call("GET", "/images/no-room").status_code == 404
    finally:
        ceph(rbd_cluster, "osd", "pool", "set-quota", "libvirt-pool", "max_bytes", "0")
    assert guest.wait("cat /root/before && echo after >/root/after && sync", RECOVERY_S) == "before"
    rbd_api.create("room-again")
    rbd_api.delete("room-again")


def test_what_nobody_knows_of(rbd_api: Api, rbd_stack: StackRun, rbd_cluster: CephCluster, guest: Any) -> None:
    """An orphan of ours is put away; what others have made is not touched, whatever it is called."""
    lost, foreign = ("0badc0de-0000-4000-8000-00000000000" + digit + "-data" for digit in "12")
    others = "somebody-elses"
    for name in (lost, foreign, others):
        rbd(rbd_cluster, "create", "--size", "1M", f"libvirt-pool/{name}")
    cloud = rbd_stack.sql("select id from cloud")[0]["id"]
    rbd(rbd_cluster, "image-meta", "set", f"libvirt-pool/{lost}", "terrace.cloud", cloud)
    node = rbd_stack.settings.hypervisors[0]
    cleaned = rbd_api.call("POST", f"/nodes/{node}/drift/clean", Prefer="wait=60")
    assert cleaned.status_code == 200, cleaned.text
    assert [(one["name"], one["kind"]) for one in cleaned.json()["differences"]] == [(foreign, "foreign")]
    left = rbd(rbd_cluster, "ls", "libvirt-pool").split()
    assert lost not in left
    assert {foreign, others} <= set(left)
    assert rbd_api.get(f"/nodes/{node}/drift")["differences"] == cleaned.json()["differences"]
    assert lost in rbd(rbd_cluster, "trash", "ls", "libvirt-pool")
    for name in (foreign, others):
        rbd(rbd_cluster, "rm", "--no-progress", f"libvirt-pool/{name}")


def test_a_disk_that_vanished_is_reported(
    rbd_api: Api, rbd_stack: StackRun, rbd_cluster: CephCluster, guest: Any
) -> None:
    made = rbd_api.call("POST", "/volumes", {"name": "vanishes", "size_gib": 1})
    assert made.status_code == 201, made.text
    name = f"{rbd_stack.sql('select uuid from volumes')[0]['uuid']}-data"
    rbd(rbd_cluster, "rm", "--no-progress", f"libvirt-pool/{name}")
    node = rbd_stack.settings.hypervisors[1]
    found = rbd_api.call("POST", f"/nodes/{node}/drift/clean").json()["differences"]
    assert [(one["name"], one["kind"]) for one in found] == [(name, "missing")]
    assert rbd_api.get("/volumes/vanishes")["name"] == "vanishes"
    assert rbd_api.call("DELETE", "/volumes/vanishes").status_code == 204
    assert rbd_api.call("POST", f"/nodes/{node}/drift/clean").json()["differences"] == []
