"""VMs in requests and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from terrace import labels as label_rules
from terrace import ssh_key, user_data
from terrace.api.body import Body, refuse_nul
from terrace.api.name import check_name
from terrace.api.volume import VmVolumeCreate, guest_device
from terrace.errors import TerraceError
from terrace.store.vms import VmView
from terrace.types import MAX_VOLUMES
from terrace.vm_state import VmStatus

MAX_FILES_BYTES: Final = 65_536
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_DISK = re.compile(r"([1-9][0-9]{0,9})([GT]?)")
_CRYPT = re.compile(r"\$(1|5|6|y|7|2[aby])\$[A-Za-z0-9./$=,]{8,250}")
_LOOSE: Final = {"Name": "name", "RAM": "ram_mib", "CPU": "cpu", "Disk": "disk_gib"}

Cpu = Annotated[int, Field(ge=1, le=512)]
RamMib = Annotated[int, Field(ge=64, le=16_777_216)]
DiskGib = Annotated[int, Field(ge=1, le=65_536)]


class VmFile(Body):
    """A file that the guest finds at its first boot."""

    path: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]{1,1023}$")] = Field(
        examples=["/etc/motd"], description="Absolute path in the guest"
    )
    content: str = Field(description="Text, written as UTF-8")
    mode: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = Field(
        default="0644", description="Octal permissions"
    )

    @field_validator("path")
    @classmethod
    def _no_dots(cls, path: str) -> str:
        if ".." in path.split("/") or path.endswith("/"):
            raise ValueError("must be the path of a file, without '..'")
        return path


class VmCreate(Body):
    """A VM to create; only ``name`` has no default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "web-1",
                    "cpu": 2,
                    "ram_mib": 1024,
                    "disk_gib": 10,
                    "image": "tiny",
                    "ssh_keys": ["laptop"],
                }
            ]
        },
    )

    name: str = Field(min_length=1, max_length=63, description="RFC 1123 label, not all digits, unique in the project")
    cpu: Cpu = Field(default=1, description="Virtual CPUs")
    ram_mib: RamMib = Field(default=512, description="Memory in MiB")
    disk_gib: DiskGib = Field(default=10, description="Size of the system disk in GiB, at least the image's")
    image: str = Field(default="tiny", min_length=1, max_length=63, description="Name or id of an image")
    ssh_keys: list[str] = Field(
        default_factory=list, max_length=64, description="Names of stored keys, or public keys themselves"
    )
    network: str = Field(default="default", min_length=1, max_length=63, description="Name or id of a network")
    password_hash: str | None = Field(
        default=None,
        description="crypt(3) hash for console logins of root and terrace",
        examples=["$6$salt$…"],
    )
    files: list[VmFile] = Field(default_factory=list, max_length=64, description="Files written at the first boot")
    user_data: str | None = Field(
        default=None, description="`#cloud-config` document or a script beginning with `#!`; at most 64 KiB"
    )
    labels: dict[str, str] = Field(default_factory=dict, description="At most 64 labels", examples=[{"env": "prod"}])
    volumes: list[VmVolumeCreate] = Field(
        default_factory=list, max_length=MAX_VOLUMES, description="Extra disks that are made and plugged in with the VM"
    )

    @property
    def all_disks_gib(self) -> int:
        """What its disks claim of a pool."""
        return self.disk_gib + sum(volume.size_gib for volume in self.volumes)

    @model_validator(mode="before")
    @classmethod
    def _accept_loose_spellings(cls, body: Any) -> Any:
        if not isinstance(body, dict) or not any(loose in body for loose in _LOOSE):
            return body
        plain = dict(body)
        for loose, field in _LOOSE.items():
            if loose in plain:
                if field in plain:
                    raise ValueError(f"give either {loose} or {field}, not both")
                plain[field] = _loosely(loose, plain.pop(loose))
        return plain

    @field_validator("name")
    @classmethod
    def _name_is_label(cls, name: str) -> str:
        return check_name(name)

    @field_validator("image", "network")
    @classmethod
    def _refs_are_text(cls, ref: str) -> str:
        return refuse_nul(ref)

    @field_validator("ssh_keys")
    @classmethod
    def _keys_parse(cls, keys: list[str]) -> list[str]:
        return [ssh_key.parse(key) if ssh_key.looks_like_key(key) else refuse_nul(key) for key in keys]

    @field_validator("password_hash")
    @classmethod
    def _is_crypt(cls, value: str | None) -> str | None:
        if value is not None and not _CRYPT.fullmatch(value):
            raise ValueError("must be a crypt(3) hash such as `openssl passwd -6` prints, never a password")
        return value

    @field_validator("files")
    @classmethod
    def _files_fit(cls, files: list[VmFile]) -> list[VmFile]:
        if sum(len(file.content.encode("utf-8", "surrogatepass")) for file in files) > MAX_FILES_BYTES:
            raise ValueError(f"all files together may have {MAX_FILES_BYTES} bytes")
        for file in files:
            _refuse_surrogates(file.content)
            _refuse_surrogates(file.path)
        return files

    @field_validator("user_data")
    @classmethod
    def _user_data_parses(cls, text: str | None) -> str | None:
        if text is not None:
            user_data.validate_user_data(text)
        return text

    @field_validator("volumes")
    @classmethod
    def _volumes_differ(cls, volumes: list[VmVolumeCreate]) -> list[VmVolumeCreate]:
        if len({volume.name for volume in volumes}) < len(volumes):
            raise ValueError("two volumes have the same name")
        return volumes

    @field_validator("labels")
    @classmethod
    def _labels_fit(cls, labels: dict[str, str]) -> dict[str, str]:
        label_rules.check(labels)
        return labels


def _refuse_surrogates(text: str) -> None:
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must be text without NUL characters or lone surrogates")


def _loosely(loose: str, value: Any) -> Any:
    """Value of a loosely spelled field: numbers as they are, digits in strings as numbers, disks in G or T."""
    if loose == "Name" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        if loose == "Disk":
            if match := _DISK.fullmatch(value):
                return int(match[1]) * (1024 if match[2] == "T" else 1)
            raise ValueError("Disk must be like 10, 10G or 1T (GiB, or TiB with T)")
        if _NUMBER.fullmatch(value):
            return int(value)
    unit = "GiB" if loose == "Disk" else "MiB" if loose == "RAM" else "virtual CPUs"
    raise ValueError(f"{loose} must be a decimal number of {unit}")


class PluggedVolume(BaseModel):
    """A volume as its VM sees it."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["data"])
    size_gib: int = Field(examples=[20])
    device: str = Field(examples=["/dev/disk/by-id/virtio-volume-1"], description="Its path in a guest with udev")


class VmOut(BaseModel):
    """A VM."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["test-1"])
    status: VmStatus = Field(examples=["running"])
    cpu: int = Field(examples=[2])
    ram_mib: int = Field(examples=[1024])
    disk_gib: int = Field(examples=[10])
    image: str = Field(examples=["tiny"])
    network: str = Field(examples=["default"])
    ip: str | None = Field(
        examples=["10.77.0.10"], description="null on a network with a foreign DHCP server, until its lease"
    )
    node: str = Field(examples=["hv1"], description="The node that owns the VM")
    labels: dict[str, str] = Field(examples=[{}])
    volumes: list[PluggedVolume] = Field(description="Volumes that are plugged in, in the order of their devices")
    created_at: datetime
    started_at: datetime | None
    ready_at: datetime | None = Field(description="When the guest first answered after its last start")
    operation: int | None = Field(examples=[17], description="The VM's newest operation")
    error: dict[str, str] | None = Field(default=None, description="Why the last operation on the VM failed")


def vm_view(vm: VmView) -> dict[str, Any]:
    """A VM as :class:`VmOut` describes it."""
    return {
        "id": vm.id,
        "name": vm.name,
        "status": vm.status,
        "cpu": vm.cpu,
        "ram_mib": vm.ram_mib,
        "disk_gib": vm.disk_gib,
        "image": vm.image,
        "network": vm.network,
        "ip": vm.ip,
        "node": vm.node,
        "labels": vm.labels,
        "volumes": [{**volume, "device": guest_device(volume["id"])} for volume in vm.volumes],
        "created_at": vm.created_at,
        "started_at": vm.started_at,
        "ready_at": vm.ready_at,
        "operation": vm.operation_id,
        "error": vm.error,
    }


class ActionBody(Body):
    """How an action is to be done."""

    timeout_s: int = Field(
        default=60,
        ge=1,
        le=600,
        description="stop and reboot: seconds that the guest gets before it is powered off or reset",
    )


def validate_action_body(body: Any) -> ActionBody:
    """The body of an action; nothing at all means the defaults."""
    if body is None or body == {}:
        return ActionBody()
    if not isinstance(body, Mapping):
        raise TerraceError("invalid_request", "The body must be a JSON object, or empty.")
    return ActionBody.model_validate(body)
