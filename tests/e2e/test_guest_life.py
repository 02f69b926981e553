"""One guest from its creation to its end, through the whole path."""

from __future__ import annotations

import base64
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from guest_login import Fleet, Guest
from public_client import Api, Json
from stack_run import StackRun
from surroundings import THERE

pytestmark = pytest.mark.e2e

FILES = [
    {"path": '/etc/nasty dir/it\'s "q" $HOME;ü.txt', "content": "no newline at the end", "mode": "0600"},
    {
        "path": "/opt/every/thing",
        "content": "\ttab\r\n  indented: [1, {2}]\n---\n#cloud-config\n'\"\\ \\n $HOME `id` $(id) %s {{ x }} EOF\n"
        "\u00e4\u20ac\U0001f600 \u0085 \u2028 \u2029 \ufeff\x01\x1b[0m\x7f\n\n\n",
        "mode": "640",
    },
    {"path": "/usr/local/bin/hello", "content": "#!/bin/sh\necho hello from a file\n", "mode": "0755"},
    {"path": "/root/empty", "content": ""},
]
CLOUD_CONFIG = """\
#cloud-config
write_files:
  - path: /root/from-user-data
    content: |
      two
      lines
runcmd:
  - echo ran >>/root/ran
  - [sh, -c, 'echo "a b" >/root/words']
"""
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"


@pytest.fixture(scope="module")
def second_key(folder: Path) -> Path:
    private = folder / "inline"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "in line", "-f", private], check=True
    )
    return private


def moment(text: str | None) -> datetime:
    assert text is not None
    return datetime.fromisoformat(text)


def test_from_creation_to_deletion(
    api: Api, stack: StackRun, fleet: dict[str, Json], key: Path, second_key: Path
) -> None:
    inline = second_key.with_suffix(".pub").read_text().strip()
    vm = api.create(
        "big",
        disk_gib=10,
        ssh_keys=["laptop", inline],
        labels={"team": "e2e", "empty": ""},
        files=FILES,
        user_data=CLOUD_CONFIG,
        password_hash=HASH,
    )
    assert vm["status"] == "running"
    assert vm["ip"].startswith("10.87.")
    assert vm["ready_at"] is None
    assert moment(vm["started_at"]) >= moment(vm["created_at"])
    assert [one["name"] for one in api.get("/vms?label=team=e2e")] == ["big"]
    steps = [step["name"] for step in api.operation(vm["operation"])["steps"]]
    assert steps == ["claim", "image", "volume", "seed", "network", "domain", "start", "placement"]

    ready = api.wait_ready("big")
    assert ready | {"ready_at": None} == vm
    guest = Guest(vm["ip"], key)
    _check_inside(guest, vm)
    assert Guest(vm["ip"], second_key).run("cat /root/ran") == "ran"
    boot = _check_reboot(api, guest, ready)
    _check_stop_and_start(api, stack, guest, vm, boot)
    _check_end(api, stack, vm)


def _check_inside(guest: Guest, vm: Json) -> None:
    guest.wait("cloud-init status --wait")
    assert guest.run("hostname") == "big"
    assert guest.run("id -un; grep -c . ~/.ssh/authorized_keys", user="terrace").split() == ["terrace", "2"]
    assert guest.run("grep -c . ~/.ssh/authorized_keys") == "2"
    size_kib = int(guest.run("df -Pk / | awk 'NR == 2 { print $2 }'"))
    assert 0.94 < size_kib / 1024**2 / 10 <= 1
    for file in FILES:
        encoded = base64.b64encode(file["path"].encode()).decode()
        text = guest.run(f'p=$(echo {encoded} | base64 -d); stat -c "%a %U:%G" "$p"; base64 "$p" | tr -d "\\n"')
        facts, _, content = text.partition("\n")
        assert facts == f"{file.get('mode', '0644').lstrip('0')} root:root", file
        assert base64.b64decode(content) == file["content"].encode(), file
    assert guest.run("hello") == "hello from a file"
    assert guest.run("cat /root/from-user-data /root/words") == "two\nlines\na b"
    shadow = guest.run("grep -E '^(root|terrace):' /etc/shadow")
    assert sorted(line.split(":")[1] for line in shadow.splitlines()) == [HASH, HASH]
    assert f"inet {vm['ip']}/16" in guest.run("ip -4 addr show dev eth0")
    assert guest.run("ip -4 route show default").startswith("default via 10.87.0.1 dev eth0")
    assert guest.run("grep nameserver /etc/resolv.conf") == f"nameserver {THERE}"


def _check_reboot(api: Api, guest: Guest, ready: Json) -> str:
    boot = guest.run("echo kept >/root/data; sync; cat /proc/sys/kernel/random/boot_id")
    vm, operation, _ = api.act("big", "reboot")
    assert (vm["status"], operation["result"]) == ("running", {"method": "agent"})
    again = api.wait_ready("big")
    assert moment(again["ready_at"]) > moment(ready["ready_at"])
    other = guest.wait("cat /proc/sys/kernel/random/boot_id")
    assert other != boot
    assert guest.wait("cloud-init status --wait && cat /root/data /root/ran").splitlines()[-2:] == ["kept", "ran"]
    return other


def _check_stop_and_start(api: Api, stack: StackRun, guest: Guest, before: Json, boot: str) -> None:
    vm, operation, _ = api.act("big", "stop")
    assert (vm["status"], vm["ready_at"]) == ("stopped", None)
    assert operation["result"]["method"] in ("agent", "acpi")
    assert stack.virsh(vm["node"], "domstate", f"terrace-{vm['id']}") == "shut off"
    assert api.act("big", "stop")[0] == vm
    vm, _, _ = api.act("big", "start")
    assert (vm["status"], vm["ip"], vm["ready_at"]) == ("running", before["ip"], None)
    assert moment(vm["started_at"]) > moment(before["started_at"])
    assert moment(api.wait_ready("big")["ready_at"]) > moment(vm["started_at"])
    assert guest.wait("cat /proc/sys/kernel/random/boot_id") != boot
    assert guest.wait("cloud-init status --wait && cat /root/data /root/ran").splitlines()[-2:] == ["kept", "ran"]
    vm, operation, took = api.act("big", "poweroff")
    assert (vm["status"], operation["result"]) == ("stopped", {"method": "poweroff"})
    assert took < 3


def _check_end(api: Api, stack: StackRun, vm: Json) -> None:
    uuid = stack.domain_uuid(vm)
    assert [name for name in stack.pool_files() if uuid in name]
    api.delete("big")
    assert api.call("GET", "/vms/big").status_code == 404
    assert api.call("GET", f"/vms/{vm['id']}").status_code == 404
    assert api.operation(api.get(f"/operations?vm={vm['id']}")[0]["id"])["state"] == "succeeded"
    assert [name for name in stack.pool_files() if uuid in name] == []
    stack.assert_consistent()
    again = api.create("big", ssh_keys=["laptop"])
    assert again["id"] != vm["id"]
    api.delete(again["id"])
    stack.assert_consistent()


def test_a_script_runs_once_as_root(guest_of: Fleet) -> None:
    _, guest = guest_of("self")
    guest.wait("cloud-init status --wait")
    assert guest.run("cat /root/ran /root/by") == "ran\n0"
