"""One internal node on files: its settings, the rows it needs, and everything that it could leave behind."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
from support.postgres import Connection, Database

from internal_api import node as node_module
from internal_api.drivers.build import Drivers, build_drivers
from internal_api.drivers.fake import FakeNetwork, FakeStorage
from internal_api.host import Host
from internal_api.node import Node
from internal_api.settings import InternalSettings
from terrace.engine.worker import Probe
from terrace.placement import Placement
from terrace.store import images, networks, pool_drift, tokens
from terrace.types import Identity, ImageId, NetworkId, ProjectId, TokenId

_OPAQUE = ("blobs", "image-files")  # a seed's checksum is another one in every world
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Cloud:
    """The rows that exist before the first VM."""

    who: Identity
    image_id: ImageId
    network_id: NetworkId


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def qcow2(virtual_gib: int = 1, seed: int = 0) -> bytes:
    """The smallest file that passes for a qcow2 image; different bytes for each seed."""
    return (
        struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, virtual_gib * GIB, 0, 1, 0, 0, 0, 0, 0)
        + struct.pack(">QQQII", 0, 0, 0, 4, 104)
        + seed.to_bytes(8, "big")
        + bytes(4096)
    )


async def stored_image(cloud: UUID, folder: Path, content: bytes) -> dict[str, Any]:
    """Put an image into a node's fake pool; the facts that its row needs."""
    storage = FakeStorage(folder)
    await storage.connect(cloud)

    async def chunks() -> Any:
        yield content

    facts = await storage.import_image(chunks(), format="qcow2", checksum=None, max_bytes=GIB)
    return {
        "format": facts.format,
        "sha256": facts.sha256,
        "size_bytes": facts.size_bytes,
        "min_disk_gib": facts.virtual_bytes // GIB,
    }


async def seed_cloud(conn: Connection, *, subnet: str = "10.1.0.0/27") -> Cloud:
    """A project, a token, an image and a network; the image's bytes are wherever the test puts them."""
    project = await tokens.ensure_project(conn, "default")
    await tokens.ensure_token(conn, project, b"hash", "admin", "test")
    token = TokenId(await conn.fetchval("select id from tokens"))
    network = await networks.insert(conn, "default", "br0", "terrace")
    cidr = IPv4Network(subnet)
    gateway = IPv4Address(int(cidr.network_address) + 1)
    await networks.insert_subnet(conn, network, cidr, gateway, ["9.9.9.9"])
    image = await images.insert(conn, project, "tiny")
    return Cloud(Identity(ProjectId(project), token, "admin"), image.id, network)


async def give_image(conn: Connection, cloud: Cloud, node: str, fake_dir: Path) -> None:
    """Make the cloud's image available on a node, which must have registered."""
    facts = await stored_image(await pool_drift.cloud_id(conn), fake_dir, qcow2())
    await images.set_available(conn, cloud.image_id, node=node, **facts)


def settings(database: Database, folder: Path, node: str = "hv1", **more: Any) -> InternalSettings:
    """Settings of a node that lives in ``folder``; nothing listens where its Redis should be."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "secret"
    secret.write_text("secret")
    values: dict[str, Any] = {
        "node_name": node,
        "port": 1,
        "database_url": database.writer_url,
        "redis_url": "unix:///nonexistent/redis.sock",
        "tier_secret_file": secret,
        "node_url": "http://127.0.0.1:1",
        "agent_port": free_port(),
        "state_dir": folder / node,
        "pool_dir": folder / node,
        "hypervisor": "fake",
        "storage": "fake",
        "network": "none",
        "fake_dir": folder / node / "world",
        "cpu": 8,
        "ram_mib": 8192,
        "disk_gib": 100,
        "cpu_overcommit": 1.0,
        "disk_overcommit": 1.0,
        "retry_backoff_s": 0.0001,
        "heartbeat_s": 5.0,
        **more,
    }
    return InternalSettings(**values)


def use_fake_drivers(*, shared_storage: bool = False) -> None:
    """Nodes of this process keep their packet filters in files, too, and share their pool if so told."""

    def drivers(wanted: InternalSettings) -> Drivers:
        made = build_drivers(wanted)
        assert wanted.fake_dir is not None
        storage = FakeStorage(wanted.fake_dir, shared=True) if shared_storage else made.storage
        return Drivers(made.hypervisor, storage, FakeNetwork(wanted.fake_dir))

    node_module.build_drivers = drivers


async def bare_host(database: Database, folder: Path, node: str = "hv1", **more: Any) -> Host:
    """What claims and changes need of a node; no worker runs, and its drivers are not connected."""
    wanted = settings(database, folder, node, **more)
    pool = await database.pool()
    drivers = build_drivers(wanted)
    incarnation, pool_id = await node_module.register(wanted, pool, drivers.storage)
    return Host(
        settings=wanted,
        pool=pool,
        pool_id=pool_id,
        incarnation=incarnation,
        hypervisor=drivers.hypervisor,
        storage=drivers.storage,
        network=drivers.network,
        placement=Placement(wanted.redis_url, 0.1),
        http=httpx.AsyncClient(),
        tier_secret=b"secret",
    )


async def start_node(wanted: InternalSettings, probe: Probe | None = None, *, shared_storage: bool = False) -> Node:
    """A node of this process, with its network in files."""
    use_fake_drivers(shared_storage=shared_storage)
    return await Node.start(wanted, probe)


async def world_of(conn: Connection, fake_dirs: Sequence[Path]) -> dict[str, Any]:
    """Rows, counters and files, with random names made equal."""
    world: dict[str, Any] = {}
    for name, query in _ROWS.items():
        world[name] = [tuple(row) for row in await conn.fetch(query)]
    for fake_dir in fake_dirs:
        for kind in ("domains", "volumes", "blobs", "images", "image-files"):
            found = (fake_dir / kind).iterdir() if (fake_dir / kind).exists() else ()
            world[f"{fake_dir.parent.name}-{kind}"] = sorted(
                (_UUID.sub("UUID", path.name), "" if kind in _OPAQUE else _UUID.sub("UUID", path.read_text()))
                for path in found
                if not path.name.startswith(".")
            )
        filters = fake_dir / "filters"
        found = filters.iterdir() if filters.exists() else ()
        world[f"{fake_dir.parent.name}-filters"] = sorted(str(orjson.loads(path.read_bytes())["ip"]) for path in found)
    return world


_ROWS = {
    "vms": """select id, name, status, desired, node, host(ip), cpu, ram_mib, disk_gib, error->>'code',
                     started_at is null from vms order by id""",
    "nodes": "select name, cpu_claimed, ram_claimed_mib from nodes order by name",
    "pools": "select name, claimed_gib from pools order by name",
    "volumes": """select id, name, status, size_gib, vm_id, slot, delete_with_vm, pool_id is null, error->>'code'
                    from volumes order by id""",
    "snapshots": "select id, name, status, consistency, vm_id from snapshots order by id",
    "snapshot_disks": "select snapshot_id, volume_id, size_gib from snapshot_disks order by snapshot_id, volume_id",
    "addresses": "select host(ip), vm_id from addresses where vm_id is not null order by ip",
    "keys": "select route, key from idempotency_keys order by route, key",
    "images": "select name, status, sha256, min_disk_gib from images order by name",
    "locations": "select sha256, node from image_locations order by sha256, node",
    "live": "select kind from operations where state in ('pending', 'running', 'undoing')",
}
