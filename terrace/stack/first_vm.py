"""The first VM: image, key, machine, all through the public API, until a login works."""

import hashlib
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrace.stack import commands, files
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.progress import Progress
from terrace.stack.public_api import PublicApi, expect

IMAGE, KEY, VM = "tiny", "terrace-up", "first"
SIZE = {"cpu": 1, "ram_mib": 256, "disk_gib": 1}
RUNNING_S = 120.0
LOGIN_S = 180.0


def ensure_image(api: PublicApi, file: Path, progress: Progress) -> None:
    """Uploads the guest image unless there is one of that name."""
    status, image = api.get(f"/images/{IMAGE}")
    if status == 404:
        checksum = hashlib.sha256(file.read_bytes()).hexdigest()
        answer = api.upload(f"/images?name={IMAGE}&format=qcow2&checksum=sha256:{checksum}", file)
        image = expect(answer, "Uploading the guest image", 201, 202)
        progress.say(f"image {IMAGE} uploaded")
    else:
        expect((status, image), "Reading the guest image", 200)
    _wait(api, f"/images/{IMAGE}", "available", RUNNING_S)


def ensure_key(api: PublicApi, layout: Layout) -> None:
    """Makes an SSH key pair and registers its public half."""
    private = layout.ssh_key
    if not private.exists():
        private.parent.mkdir(mode=0o700, exist_ok=True)
        commands.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY, "-f", str(private))
    public = private.with_name(private.name + ".pub")
    for path in (private.parent, private, public):
        files.give_to_caller(path)
    key = public.read_text().strip()
    status, known = api.get(f"/ssh-keys/{KEY}")
    if status == 200 and known["public_key"].split()[:2] != key.split()[:2]:
        expect(api.delete(f"/ssh-keys/{KEY}"), "Removing an outdated SSH key", 204)
        status = 404
    if status == 404:
        expect(api.post("/ssh-keys", {"name": KEY, "public_key": key}), "Registering the SSH key", 201)


def ensure_vm(api: PublicApi, progress: Progress) -> dict[str, Any]:
    """The VM `first`, running: created when absent, started when stopped."""
    status, vm = api.get(f"/vms/{VM}")
    if status == 404:
        vm = expect(
            api.post("/vms", {"name": VM, **SIZE, "image": IMAGE, "ssh_keys": [KEY]}),
            "Creating the first VM",
            201,
            202,
        )
        progress.say(f"VM {VM} {'created' if vm['status'] == 'running' else 'is being created'} on {vm['node']}")
    else:
        expect((status, vm), "Reading the first VM", 200)
        if vm["status"] in ("stopped", "crashed"):
            expect(api.post(f"/vms/{VM}/actions/start"), "Starting the first VM", 200, 202)
            progress.say(f"VM {VM} started again")
    return _wait(api, f"/vms/{VM}", "running", RUNNING_S)


def _wait(api: PublicApi, path: str, status: str, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        thing: dict[str, Any] = expect(api.get(path), f"Reading {path}", 200)
        if thing["status"] == status:
            return thing
        if thing["status"] == "error" or time.monotonic() > deadline:
            raise StackError(f"{path} is {thing['status']}, not {status}: {thing.get('error') or 'it took too long'}.")
        time.sleep(0.2)


def ssh_command(layout: Layout, address: str) -> list[str]:
    """A login without questions. Addresses pass from guest to guest, so their keys aren't remembered."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return ["ssh", "-i", str(layout.ssh_key), *options, f"root@{address}"]


def wait_login(command: Sequence[str], address: str) -> None:
    """Until a command runs in the guest. Raises StackError with what ssh said last."""
    deadline = time.monotonic() + LOGIN_S
    batch = [command[0], "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *command[1:], "true"]
    said = ""
    while time.monotonic() < deadline:
        if _listens(address):
            done = subprocess.run(
                batch, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
            )
            if done.returncode == 0:
                return
            said = done.stderr.strip()
        time.sleep(0.2)
    raise StackError(f"Nobody can log in to the VM {VM} at {address} yet.", said or "Its SSH port does not answer.")


def _listens(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=2).close()
    except OSError:
        return False
    return True
