from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from golden_file import check_golden
from hypothesis import given
from hypothesis import strategies as st

from internal_api import cloudinit
from internal_api.cloudinit import GuestConfig, GuestFile, StaticAddress
from internal_api.json_yaml import json_yaml
from terrace.errors import TerraceError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEx laptop"
GUEST = GuestConfig(
    instance_id="8a3a1f1e-0000-4000-8000-000000000001",
    hostname="test-1",
    mac="52:54:00:AA:BB:CC",
    address=StaticAddress("10.77.0.10", 16, "10.77.0.1", ("9.9.9.9", "1.1.1.1")),
    ssh_keys=(KEY,),
)


def _config(guest: GuestConfig) -> Any:
    """The document, which JSON and YAML must read alike."""
    text = cloudinit.user_data(guest)
    head, body = text.split("\n", 1)
    assert head == "#cloud-config"
    assert body.count("\n") == 1 and body.endswith("\n")
    assert yaml.safe_load(text) == json.loads(body)
    return json.loads(body)


def _user(config: Any, name: str) -> Any:
    (found,) = [user for user in config["users"] if user["name"] == name]
    return found


def test_golden() -> None:
    documents = (cloudinit.meta_data(GUEST), cloudinit.user_data(GUEST), cloudinit.network_config(GUEST))
    check_golden("cloudinit.txt", "---\n".join(documents))


def test_all_documents_are_json_and_yaml() -> None:
    for text in (cloudinit.meta_data(GUEST), cloudinit.network_config(GUEST)):
        assert yaml.safe_load(text) == json.loads(text)


def test_network() -> None:
    static = json.loads(cloudinit.network_config(GUEST))["ethernets"]["nic0"]
    assert static["match"] == {"macaddress": "52:54:00:aa:bb:cc"}
    assert static["addresses"] == ["10.77.0.10/16"]
    assert static["routes"] == [{"to": "0.0.0.0/0", "via": "10.77.0.1"}]
    assert static["nameservers"] == {"addresses": ["9.9.9.9", "1.1.1.1"]}
    dhcp = json.loads(cloudinit.network_config(replace(GUEST, address=None, mtu=1400)))["ethernets"]["nic0"]
    assert dhcp["dhcp4"] is True and "addresses" not in dhcp and dhcp["mtu"] == 1400
    alone = replace(GUEST, address=StaticAddress("10.0.0.2", 24, None))
    nic = json.loads(cloudinit.network_config(alone))["ethernets"]["nic0"]
    assert "routes" not in nic and "nameservers" not in nic


def test_password_is_for_both_users_and_not_for_ssh() -> None:
    config = _config(replace(GUEST, password_hash="$6$salt$hash"))
    for name in ("terrace", "root"):
        assert _user(config, name)["hashed_passwd"] == "$6$salt$hash"
        assert _user(config, name)["lock_passwd"] is False
        assert _user(config, name)["ssh_authorized_keys"] == [KEY]
    assert config["ssh_pwauth"] is False and config["disable_root"] is False
    assert _user(_config(GUEST), "root")["lock_passwd"] is True


def test_user_data_is_merged() -> None:
    guest = replace(
        GUEST,
        files=(GuestFile("/etc/one", "1\n", "0600"),),
        user_data="""#cloud-config
hostname: mine
ssh_pwauth: true
growpart: {mode: off}
write_files: [{path: /etc/two, content: "2"}]
runcmd: [ls, [echo, a b]]
ssh_authorized_keys: [ssh-rsa BBBB more]
users:
  - default
  - name: terrace
    shell: /bin/zsh
    ssh_authorized_keys: [ssh-rsa CCCC]
  - name: bob
packages: [vim]
""",
    )
    config = _config(guest)
    assert config["hostname"] == "mine" and config["ssh_pwauth"] is True
    assert config["growpart"] == {"mode": False, "devices": ["/"]}
    assert [file["path"] for file in config["write_files"]] == ["/etc/one", "/etc/two"]
    assert config["write_files"][0]["permissions"] == "0600"
    assert config["runcmd"] == ["ls", ["echo", "a b"]] and config["packages"] == ["vim"]
    names = [user if isinstance(user, str) else user["name"] for user in config["users"]]
    assert names == ["terrace", "root", "default", "bob"]
    terrace = config["users"][0]
    assert terrace["shell"] == "/bin/zsh" and terrace["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert terrace["ssh_authorized_keys"] == [KEY, "ssh-rsa CCCC", "ssh-rsa BBBB more"]


def test_script_is_run() -> None:
    script = '#!/bin/sh\r\necho "it\'s" $HOME \\ 🚀 \x7f\x85\u2028\ufeff\n'
    config = _config(replace(GUEST, user_data=script))
    (file,) = config["write_files"]
    assert file["content"] == script and file["permissions"] == "0700"
    assert config["runcmd"] == [file["path"]]


def test_empty_and_bad_user_data() -> None:
    assert _config(replace(GUEST, user_data="#cloud-config\n")) == _config(GUEST)
    with pytest.raises(TerraceError):
        cloudinit.user_data(replace(GUEST, user_data="#cloud-config\n- x"))


# PyYAML reads a lone carriage return's escape, and all others, as JSON does; half surrogates are refused
_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=50)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(_texts, _values, max_size=5))
def test_json_and_yaml_agree_on_everything(value: dict[str, Any]) -> None:
    text = json_yaml(value)
    assert json.loads(text) == value
    assert yaml.safe_load(text) == value
    assert yaml.load(text, Loader=yaml.CSafeLoader) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
def test_what_they_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        json_yaml(value)
