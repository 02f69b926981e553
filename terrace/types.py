"""Ids, and the few words that both tiers use for what a request and a VM are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NewType

ProjectId = NewType("ProjectId", int)
TokenId = NewType("TokenId", int)
VmId = NewType("VmId", int)
ImageId = NewType("ImageId", int)
OperationId = NewType("OperationId", int)
NetworkId = NewType("NetworkId", int)
PoolId = NewType("PoolId", int)
SubnetId = NewType("SubnetId", int)
VolumeId = NewType("VolumeId", int)
SnapshotId = NewType("SnapshotId", int)

MAX_ID: Final = 2**63 - 1
MAX_VOLUMES: Final = 8  # that one VM can have: each needs a port of its own on the guest's bus


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a request acts."""

    project_id: ProjectId
    token_id: TokenId
    role: str


def find_id(ref: str) -> int | None:
    """The id that a path segment means, or None when it is a name (names are never all digits)."""
    if ref.isascii() and ref.isdigit() and len(ref) <= 19 and 0 < int(ref) <= MAX_ID:
        return int(ref)
    return None
