"""Nodes in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from terrace.store.nodes import NodeView


class NodeOut(BaseModel):
    """A virtualization node: what it offers and what is claimed of it."""

    name: str = Field(examples=["hv1"])
    state: str = Field(examples=["active"], description="active, draining, maintenance or down (not seen for 15 s)")
    cpu: int = Field(description="Cores; VMs may claim cpu × cpu_overcommit")
    cpu_overcommit: float
    cpu_claimed: int
    ram_mib: int
    ram_overcommit: float
    ram_claimed_mib: int
    pool: str = Field(examples=["libvirt-pool"], description="Where the disks of its VMs lie")
    storage: str = Field(examples=["rbd"], description="The pool's kind: rbd or dir")
    pool_shared: bool = Field(description="Whether other nodes use the same pool: then disk figures are of all")
    pool_used_bytes: int | None = Field(description="What the pool's storage says it holds; null: not yet known")
    disk_gib: int = Field(description="Size of its pool")
    disk_overcommit: float
    disk_claimed_gib: int
    vms: int = Field(description="VMs that it owns, in any state")
    last_seen: datetime


def node_view(node: NodeView) -> dict[str, Any]:
    """A node as :class:`NodeOut` describes it."""
    return {
        "name": node.name,
        "state": node.state,
        "cpu": node.cpu,
        "cpu_overcommit": round(node.cpu_overcommit, 3),
        "cpu_claimed": node.cpu_claimed,
        "ram_mib": node.ram_mib,
        "ram_overcommit": round(node.ram_overcommit, 3),
        "ram_claimed_mib": node.ram_claimed_mib,
        "pool": node.pool,
        "storage": node.storage,
        "pool_shared": node.pool_shared,
        "pool_used_bytes": node.pool_used_bytes,
        "disk_gib": node.disk_gib,
        "disk_overcommit": round(node.disk_overcommit, 3),
        "disk_claimed_gib": node.disk_claimed_gib,
        "vms": node.vms,
        "last_seen": node.last_seen,
    }
