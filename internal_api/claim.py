"""The claim: one transaction that decides whether this node makes a VM, and takes all it needs.

Locks are taken in the order key, node, pool, address, VM. Nothing outside PostgreSQL happens here.
A refusal (another node may do better) rolls everything back, and so does every error.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

import asyncpg

from internal_api.host import Host
from internal_api.workflows import create_vm
from terrace import ssh_key
from terrace.api.vm import VmCreate
from terrace.db import Conn, in_transaction
from terrace.errors import Conflict, Refused, TerraceError
from terrace.store import idempotency, images, networks, nodes, operations, ssh_keys, vms, volumes
from terrace.store.images import Image
from terrace.store.networks import Network
from terrace.store.operations import NewOperation, Operation
from terrace.store.vms import NewVm, Vm
from terrace.store.volumes import NewVolume
from terrace.types import Identity, VmId, find_id


@dataclass(frozen=True, slots=True)
class Claimed:
    """The operation that makes the VM, and whether an earlier request with the same key began it."""

    operation: Operation
    vm_id: VmId
    repeated: bool
    vm: Vm | None = None


async def claim_vm(host: Host, who: Identity, body: VmCreate, key: idempotency.Key, request_id: str) -> Claimed:
    """Claim a VM on this node.

    Raises Refused when this node can't take it; TerraceError with ``unknown_image``,
    ``unknown_network``, ``unknown_ssh_key``, ``size_out_of_range``, ``name_taken``, ``no_address``,
    ``idempotency_key_reused``, ``image_not_ready`` where no other node would do better.
    """

    async def work(conn: Conn) -> Claimed:
        earlier = await idempotency.take(conn, key)
        if earlier is not None and earlier.operation is not None and earlier.operation.vm_id is not None:
            return Claimed(earlier.operation, earlier.operation.vm_id, repeated=True)
        return await _claim(conn, host, who, body, key, request_id)

    try:
        claimed = await in_transaction(host.pool, work)
    except asyncpg.UniqueViolationError as exc:
        if exc.constraint_name == "vms_project_id_name_key":
            raise Conflict("name_taken", f"A VM named {body.name} exists in this project.") from None
        if exc.constraint_name == "volumes_project_id_name_key":
            raise Conflict("name_taken", "A volume of one of these names exists in this project.") from None
        raise
    if claimed.vm is not None:
        host.claimed[claimed.vm_id] = claimed.vm
    return claimed


async def _claim(
    conn: Conn, host: Host, who: Identity, body: VmCreate, key: idempotency.Key, request_id: str
) -> Claimed:
    image = await _image(conn, who, body)
    network = await _network(conn, body)
    keys = await _ssh_keys(conn, who, body)
    has_cpu_and_ram, has_disk = await nodes.claim(
        conn, host.node, host.incarnation, host.pool_id, cpu=body.cpu, ram_mib=body.ram_mib, disk_gib=body.all_disks_gib
    )
    if not (has_cpu_and_ram and has_disk):
        await _refuse_if_impossible(conn, body)
        if has_cpu_and_ram:
            raise Refused("disk")
        raise Refused(await nodes.why_refused(conn, host.node, host.incarnation, body.cpu, body.ram_mib))
    new = _new_vm(host, who, body, image, network, keys)
    inserted = await vms.insert_with_address(conn, new, network.subnet_id)
    if inserted is None:
        raise TerraceError("no_address", f"Network {network.name} has no free address.")
    vm_id, ip = inserted
    if body.volumes:
        await volumes.insert(conn, [_new_volume(host, who, body, vm_id, index) for index in range(len(body.volumes))])
    operation = await operations.insert(
        conn,
        NewOperation(
            kind=create_vm.KIND,
            project_id=who.project_id,
            node=host.node,
            steps=create_vm.STEP_NAMES,
            origin=host.node,
            token_id=who.token_id,
            request_id=request_id,
            vm_id=vm_id,
            vm_name=body.name,
            cursor=1,  # the claim itself is step 0
        ),
    )
    await idempotency.settle(conn, key, operation_id=operation.id)
    # one with volumes is read back as a whole
    vm = None if body.volumes else _inserted_vm(new, vm_id, ip, image, network)
    return Claimed(operation, vm_id, repeated=False, vm=vm)


def _new_vm(host: Host, who: Identity, body: VmCreate, image: Image, network: Network, keys: list[str]) -> NewVm:
    return NewVm(
        uuid=uuid.uuid4(),
        project_id=who.project_id,
        name=body.name,
        cpu=body.cpu,
        ram_mib=body.ram_mib,
        disk_gib=body.disk_gib,
        image_id=image.id,
        ssh_keys=keys,
        password_hash=body.password_hash,
        files=[file.model_dump() for file in body.files],
        user_data=body.user_data,
        labels=body.labels,
        network_id=network.id,
        mac=new_mac(),
        pool_id=host.pool_id,
        node=host.node,
    )


def _inserted_vm(new: NewVm, vm_id: VmId, ip: str | None, image: Image, network: Network) -> Vm:
    """The row as :func:`terrace.store.vms.find` would read it back."""
    assert image.sha256 is not None
    assert image.format is not None
    return Vm(
        id=vm_id,
        uuid=new.uuid,
        project_id=new.project_id,
        name=new.name,
        cpu=new.cpu,
        ram_mib=new.ram_mib,
        disk_gib=new.disk_gib,
        image_id=new.image_id,
        image_sha256=image.sha256,
        image_format=image.format,
        ssh_keys=new.ssh_keys,
        password_hash=new.password_hash,
        files=new.files,
        user_data=new.user_data,
        network_id=new.network_id,
        bridge=network.bridge,
        dhcp=network.dhcp,
        cidr=network.cidr,
        gateway=network.gateway,
        dns=network.dns,
        mac=new.mac,
        ip=ip,
        pool_id=new.pool_id,
        node=new.node,
        epoch=1,
        desired="running",
        status="creating",
        volumes=[],
    )


def _new_volume(host: Host, who: Identity, body: VmCreate, vm_id: VmId, index: int) -> NewVolume:
    wanted = body.volumes[index]
    return NewVolume(
        uuid=uuid.uuid4(),
        project_id=who.project_id,
        name=wanted.name,
        size_gib=wanted.size_gib,
        pool_id=host.pool_id,
        vm_id=vm_id,
        slot=volumes.FIRST_SLOT + index,
        delete_with_vm=wanted.delete_with_vm,
    )


def new_mac() -> str:
    """A random locally administered unicast address (IEEE 802, U/L bit set)."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *secrets.token_bytes(5)))


async def _image(conn: Conn, who: Identity, body: VmCreate) -> Image:
    ref = find_id(body.image)
    image = await images.find(conn, who.project_id, body.image if ref is None else ref)
    if image is None:
        raise TerraceError("unknown_image", f"There is no image {body.image!r} in this project.")
    if image.status != "available":
        raise Conflict("image_not_ready", f"Image {image.name} is still being imported.")
    if image.min_disk_gib is not None and body.disk_gib < image.min_disk_gib:
        raise TerraceError(
            "size_out_of_range",
            f"disk_gib must be at least {image.min_disk_gib}, the size of image {image.name}.",
            fields=(("disk_gib", f"must be at least {image.min_disk_gib}"),),
        )
    return image


async def _network(conn: Conn, body: VmCreate) -> Network:
    ref = find_id(body.network)
    network = await networks.find(conn, body.network if ref is None else ref)
    if network is None:
        raise TerraceError("unknown_network", f"There is no network {body.network!r}.")
    return network


async def _ssh_keys(conn: Conn, who: Identity, body: VmCreate) -> list[str]:
    names = [key for key in body.ssh_keys if not ssh_key.looks_like_key(key)]
    if not names:
        return list(dict.fromkeys(body.ssh_keys))
    stored = await ssh_keys.find_by_names(conn, who.project_id, names)
    missing = next((name for name in names if name not in stored), None)
    if missing is not None:
        raise TerraceError(
            "unknown_ssh_key",
            f"There is no stored SSH key named {missing[:80]!r}.",
            fields=(("ssh_keys", f"{missing[:80]!r} is neither a stored key's name nor a public key"),),
        )
    return list(dict.fromkeys(stored.get(key, key) for key in body.ssh_keys))


async def _refuse_if_impossible(conn: Conn, body: VmCreate) -> None:
    if not await nodes.has_node_for(conn, body.cpu, body.ram_mib, body.all_disks_gib):
        raise TerraceError(
            "size_out_of_range",
            "No node is large enough for this VM, even when empty. Ask for less cpu, ram_mib, disk_gib or volumes.",
        )
