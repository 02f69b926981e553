"""SSH keys in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, field_validator

from terrace import ssh_key
from terrace.api.body import Body
from terrace.api.name import check_name
from terrace.store.ssh_keys import SshKey


class SshKeyCreate(Body):
    """A public key to store."""

    name: str = Field(min_length=1, max_length=63, examples=["laptop"])
    public_key: str = Field(examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA… me@laptop"])

    @field_validator("name")
    @classmethod
    def _name_is_label(cls, name: str) -> str:
        return check_name(name)

    @field_validator("public_key")
    @classmethod
    def _parses(cls, text: str) -> str:
        return ssh_key.parse(text)


class SshKeyOut(BaseModel):
    """A stored public key."""

    id: int
    name: str = Field(examples=["laptop"])
    public_key: str
    fingerprint: str = Field(examples=["SHA256:…"])
    created_at: datetime


def ssh_key_view(key: SshKey) -> dict[str, Any]:
    """A key as :class:`SshKeyOut` describes it."""
    return {
        "id": key.id,
        "name": key.name,
        "public_key": key.public_key,
        "fingerprint": key.fingerprint,
        "created_at": key.created_at,
    }
