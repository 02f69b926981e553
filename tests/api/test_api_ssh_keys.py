"""SSH keys: stored, found by name and id, given to VMs, refused when sshd would refuse them."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest
from support.api import Api, new_name
from support.problems import assert_problem

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Wm1hk8tDZ0Gu4PHWvIWl6JYXWk5nCQvCVIVCvEeQy"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def generated(kind: str, folder: Path, *options: str) -> tuple[str, str]:
    """A public key of OpenSSH's own making, and its fingerprint."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "me@laptop", "-f", folder / "k"], check=True
    )
    shown = subprocess.run(["ssh-keygen", "-lf", folder / "k.pub"], check=True, capture_output=True, text=True)
    return (folder / "k.pub").read_text(), shown.stdout.split()[1]


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521"))]
)
async def test_keys_of_openssh_are_stored(api: Api, tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    public, fingerprint = generated(kind, tmp_path, *options)
    name = new_name("key")
    response = await api.http.post("/ssh-keys", json={"name": name, "public_key": public})
    assert response.status_code == 201, response.text
    key = response.json()
    assert key.keys() == {"id", "name", "public_key", "fingerprint", "created_at"}
    assert (key["name"], key["public_key"], key["fingerprint"]) == (name, public.strip(), fingerprint)
    assert await api.get(f"/ssh-keys/{name}") == await api.get(f"/ssh-keys/{key['id']}") == key
    assert key in await api.all("/ssh-keys?limit=1")
    vm = await api.create(ssh_keys=[name, public])
    assert vm["status"] == "running"
    assert (await api.http.delete(f"/ssh-keys/{key['id']}")).status_code == 204
    assert_problem(await api.http.get(f"/ssh-keys/{name}"), 404, "not_found")
    assert_problem(await api.post_vm(ssh_keys=[name]), 422, "unknown_ssh_key")


MALFORMED = [
    *(
        "",
        " ",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 !!!",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2E=",
        "hello world",
    ),
    ED25519[:-4],
    ED25519.replace("ssh-ed25519 ", "ssh-rsa "),
    ED25519 + " a\nssh-ed25519 b",
    ED25519 + " \x00",
    ED25519 + " " + "c" * 256,
    "ssh-dss AAAAB3NzaC1kc3MAAACBAO",
    "ssh-ed25519 " + "A" * 20_000,
    PRIVATE,
    'command="rm -rf /" ' + ED25519,
    "ssh-ed25519 " + base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x01x").decode(),
]


@pytest.mark.parametrize("text", MALFORMED)
async def test_malformed_keys_are_refused(api: Api, text: str) -> None:
    problem = assert_problem(
        await api.http.post("/ssh-keys", json={"name": "bad", "public_key": text}), 422, "invalid_ssh_key"
    )
    assert "b3BlbnNz" not in str(problem), "a private key is not echoed"
    response = await api.post_vm(ssh_keys=[text])
    assert response.status_code == 422
    assert assert_problem(response, 422)["code"] in ("invalid_ssh_key", "unknown_ssh_key", "invalid_request")
    assert await api.get("/vms") == []


@pytest.mark.parametrize("name", ["", "Laptop", "1", "-a", "a b", "a" * 64, "a\n", "ü", "a\x00"])
async def test_names_are_labels(api: Api, name: str) -> None:
    response = await api.http.post("/ssh-keys", json={"name": name, "public_key": ED25519})
    assert_problem(response, 422, "invalid_request")


async def test_a_name_is_taken_once(api: Api) -> None:
    name = new_name("key")
    responses = await asyncio.gather(
        *(api.http.post("/ssh-keys", json={"name": name, "public_key": f"{ED25519} {n}"}) for n in range(10))
    )
    assert sorted(response.status_code for response in responses) == [201] + [409] * 9
    assert (await api.http.delete(f"/ssh-keys/{name}")).status_code == 204


async def test_too_many_keys(api: Api) -> None:
    assert_problem(await api.post_vm(ssh_keys=[f"{ED25519} {n}" for n in range(65)]), 422, "invalid_request")
    assert (await api.post_vm(ssh_keys=[f"{ED25519} {n}" for n in range(64)])).status_code == 201
