"""SSH public keys: those that ssh-keygen makes pass, and what sshd would not take does not."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace import ssh_key
from terrace.errors import TerraceError


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


ED25519 = blob(b"ssh-ed25519", bytes(32))
KEY = f"ssh-ed25519 {ED25519} me@there"


@pytest.mark.parametrize(
    "options",
    [["ed25519"], ["rsa", "-b", "2048"], ["ecdsa", "-b", "256"], ["ecdsa", "-b", "384"], ["ecdsa", "-b", "521"]],
)
def test_real_keys(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "a comment", "-f", path, "-t", *options], check=True)
    text = path.with_suffix(".pub").read_text()
    parsed = ssh_key.parse(text)
    assert parsed == text.strip()
    shown = subprocess.run(["ssh-keygen", "-l", "-f", path.with_suffix(".pub")], check=True, capture_output=True)
    assert ssh_key.fingerprint(parsed) in shown.stdout.decode()
    private = path.read_text()
    for wrong in (private, private.replace("\n", " ")):
        with pytest.raises(TerraceError, match=r"private|one line"):
            ssh_key.parse(wrong)


def test_spaces_around_and_between() -> None:
    assert ssh_key.parse(f"  ssh-ed25519\t{ED25519}   me at home \n") == f"ssh-ed25519 {ED25519} me at home"
    assert ssh_key.parse(f"ssh-ed25519 {ED25519}") == f"ssh-ed25519 {ED25519}"


@pytest.mark.parametrize(
    "text",
    [
        "", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 !!!", "ssh-ed25519 AAAA", f"ssh-rsa {ED25519}",
        f"ssh-dss {blob(b'ssh-dss', b'x')}", f"{KEY}\n{KEY}", f"{KEY}\rx", f"{KEY}\x00", f"{KEY}\x7f",
        f'command="rm" {KEY}', f"no-pty {KEY}", KEY + "x" * 300, KEY + "x" * 20_000,
        f"ssh-ed25519 {ED25519[:-4]}", f"ssh-ed25519 {ED25519}AAAA",
        f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(31))}", f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(32), b'')}",
        f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]), bytes([127] * 128))}",
        f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]))}",
        f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp384', bytes([4] * 97))}",
        f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp256', bytes([4] * 64))}",
    ],
)  # fmt: skip
def test_what_sshd_would_not_take(text: str) -> None:
    with pytest.raises(TerraceError) as refused:
        ssh_key.parse(text)
    assert (refused.value.code, refused.value.status) == ("invalid_ssh_key", 422)
    assert len(refused.value.detail) < 200


@given(st.text(max_size=200) | st.text(max_size=60).map(lambda text: f"ssh-ed25519 {text}"))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        parsed = ssh_key.parse(text)
    except TerraceError as error:
        assert error.code == "invalid_ssh_key"
    else:
        assert "\n" not in parsed
        assert ssh_key.parse(parsed) == parsed


@given(st.binary(max_size=120))
def test_any_data_is_a_key_or_refused(data: bytes) -> None:
    for kind in ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"):
        with pytest.raises(TerraceError):
            ssh_key.parse(f"{kind} {base64.b64encode(data).decode()}")


@pytest.mark.parametrize("text", [KEY, "ssh-rsa AAAA", "not a key", "ssh-ed25519 ", "ssh-ed25519AAAA", "ssh-rsa\tAAAA"])
def test_meant_as_a_key(text: str) -> None:
    assert ssh_key.looks_like_key(text)


@pytest.mark.parametrize("text", ["laptop", "ssh-laptop", "ecdsa-of-ann", "a", "0-1"])
def test_meant_as_a_name(text: str) -> None:
    assert not ssh_key.looks_like_key(text)
