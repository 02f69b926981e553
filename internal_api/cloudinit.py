"""The three NoCloud documents of a VM, as pure functions.

They are JSON, which is YAML too: cloud-init reads them, and so does a guest that has only a JSON parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from internal_api.json_yaml import Json, json_yaml
from terrace.user_data import CLOUD_CONFIG, is_script, parse_cloud_config

DEFAULT_USER = "terrace"
USER_SCRIPT_PATH = "/var/lib/cloud/terrace/user-script"


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A text file that the guest gets at its first boot."""

    path: str
    content: str
    mode: str = "0644"  # octal digits


@dataclass(frozen=True, slots=True)
class StaticAddress:
    """An address out of one of Terrace's subnets."""

    ip: str
    prefix_length: int
    gateway: str | None
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What a guest is told at its first boot."""

    instance_id: str
    hostname: str
    mac: str
    address: StaticAddress | None  # None: somebody's DHCP decides
    ssh_keys: tuple[str, ...] = ()
    password_hash: str | None = None  # crypt(5), for the console: SSH takes keys only
    files: tuple[GuestFile, ...] = ()
    user_data: str | None = None
    mtu: int | None = None


def meta_data(guest: GuestConfig) -> str:
    """A new ``instance-id`` makes cloud-init configure the guest anew."""
    return json_yaml({"instance-id": guest.instance_id, "local-hostname": guest.hostname}) + "\n"


def network_config(guest: GuestConfig) -> str:
    """Network config version 2; the card is found by its MAC, as its name differs between images."""
    nic: dict[str, Json] = {"match": {"macaddress": guest.mac.lower()}, "set-name": "eth0"}
    if guest.mtu is not None:
        nic["mtu"] = guest.mtu
    if guest.address is None:
        nic["dhcp4"] = True
    else:
        nic["dhcp4"] = False
        nic["addresses"] = [f"{guest.address.ip}/{guest.address.prefix_length}"]
        if guest.address.gateway is not None:
            nic["routes"] = [{"to": "0.0.0.0/0", "via": guest.address.gateway}]
        if guest.address.dns:
            nic["nameservers"] = {"addresses": list(guest.address.dns)}
    return json_yaml({"version": 2, "ethernets": {"nic0": nic}}) + "\n"


def user_data(guest: GuestConfig) -> str:
    """The platform's cloud-config with the user's merged into it; raises TerraceError if that is invalid."""
    config = _platform_config(guest)
    if guest.user_data is not None:
        if is_script(guest.user_data):
            config = merge(config, _script_config(guest.user_data))
        else:
            config = merge(config, parse_cloud_config(guest.user_data))
            _give_keys_to_default_user(config)
    return f"{CLOUD_CONFIG}\n{json_yaml(config)}\n"


def merge(platform: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, lists appended to the platform's, and of two other values the user's wins."""
    merged = dict(platform)
    for key, value in user.items():
        match merged.get(key), value:
            case dict() as ours, dict():
                merged[key] = merge(ours, value)
            case list() as ours, list():
                merged[key] = _merge_users(ours, value) if key == "users" else ours + value
            case _:
                merged[key] = value
    return merged


def _merge_users(platform: list[Any], user: list[Any]) -> list[Any]:
    """An entry of a name that the platform has changes that user; any other is one more user."""
    merged = list(platform)
    for entry in user:
        name = entry.get("name") if isinstance(entry, dict) else None
        for index, ours in enumerate(merged):
            if name is not None and isinstance(ours, dict) and ours.get("name") == name:
                merged[index] = merge(ours, entry)
                break
        else:
            merged.append(entry)
    return merged


def _platform_config(guest: GuestConfig) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hostname": guest.hostname,
        "preserve_hostname": False,
        "manage_etc_hosts": True,
        "disable_root": False,
        "ssh_pwauth": False,
        "growpart": {"mode": "auto", "devices": ["/"]},
        "resize_rootfs": True,
        "users": [
            {
                "name": DEFAULT_USER,
                "gecos": "Terrace",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                **_login(guest),
            },
            {"name": "root", **_login(guest)},
        ],
    }
    if guest.files:
        config["write_files"] = [_write_file(file.path, file.content, file.mode) for file in guest.files]
    return config


def _login(guest: GuestConfig) -> dict[str, Any]:
    login: dict[str, Any] = {"lock_passwd": guest.password_hash is None}
    if guest.password_hash is not None:
        login["hashed_passwd"] = guest.password_hash
    login["ssh_authorized_keys"] = list(guest.ssh_keys)
    return login


def _script_config(script: str) -> dict[str, Any]:
    return {
        "write_files": [_write_file(USER_SCRIPT_PATH, script, "0700")],
        "runcmd": [USER_SCRIPT_PATH],
    }


def _write_file(path: str, content: str, mode: str) -> dict[str, Any]:
    return {"path": path, "content": content, "owner": "root:root", "permissions": mode}


def _give_keys_to_default_user(config: dict[str, Any]) -> None:
    """cloud-init gives keys at the top to its distribution's default user, which these guests don't have."""
    keys = config.get("ssh_authorized_keys")
    if keys:
        entry: dict[str, Any] = {"name": DEFAULT_USER, "ssh_authorized_keys": keys}
        config["users"] = _merge_users(config["users"], [entry])
