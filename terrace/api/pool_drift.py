"""What a node's pool and the records disagree about, in answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from terrace.store.pool_drift import Difference, PoolState


class DifferenceOut(BaseModel):
    """One thing that is in the pool or in the records, and not in both."""

    name: str = Field(examples=["0d4f7a52-3f0e-4d57-9c39-0c2f4f0f8f0e-root"], description="Its name in the pool")
    kind: str = Field(
        examples=["orphan"],
        description="orphan: this cloud made it, and nothing is recorded of it; missing: recorded, and not in the"
        " pool; foreign: looks like a volume and is not this cloud's",
    )
    first_seen: datetime
    last_seen: datetime


class DriftOut(BaseModel):
    """How a node's pool differs from the records, as the last check found it."""

    node: str = Field(examples=["hv1"])
    pool: str = Field(examples=["libvirt-pool"])
    storage: str = Field(examples=["rbd"])
    checked_at: datetime | None = Field(description="null: not yet")
    differences: list[DifferenceOut]


def drift_view(node: str, pool: PoolState, found: Sequence[Difference]) -> dict[str, Any]:
    """Drift as :class:`DriftOut` describes it."""
    return {
        "node": node,
        "pool": pool.name,
        "storage": pool.driver,
        "checked_at": pool.checked_at,
        "differences": [
            {"name": one.name, "kind": one.kind, "first_seen": one.first_seen, "last_seen": one.last_seen}
            for one in found
        ],
    }
