"""Changes of volumes: what a request may begin, decided in one transaction each.

Locks are taken in the order key, pool, VM, volume.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from internal_api import change
from internal_api.caller import Caller
from internal_api.host import Host
from internal_api.workflows import STEP_NAMES
from terrace.api.volume import VolumeAttach, VolumeCreate
from terrace.db import Conn, in_transaction
from terrace.errors import Conflict, NotFound, TerraceError
from terrace.store import idempotency, nodes, operations, snapshots, vms, volumes
from terrace.store.operations import NewOperation, Operation
from terrace.store.vms import Vm
from terrace.store.volumes import NewVolume, Volume
from terrace.types import MAX_VOLUMES, PoolId, VolumeId, find_id


@dataclass(frozen=True, slots=True)
class Begun:
    """What a request has led to; no operation when nothing was left to do."""

    volume_id: VolumeId
    operation: Operation | None
    inserted: bool = False  # the operation is this request's own


async def begin_create(host: Host, caller: Caller, body: VolumeCreate) -> Begun:
    """Begin to make a volume; on pools that belong to a node, nothing is stored before it is attached.

    Raises Conflict ``name_taken``; TerraceError ``size_out_of_range`` or ``no_capacity``.
    """
    shared = host.storage.capabilities.shared

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, caller)
        if earlier is not None:
            return earlier
        await _claim_disk(conn, host.pool_id if shared else None, body.size_gib)
        [volume_id] = await volumes.insert(
            conn,
            [
                NewVolume(
                    uuid=uuid.uuid4(),
                    project_id=caller.identity.project_id,
                    name=body.name,
                    size_gib=body.size_gib,
                    pool_id=host.pool_id if shared else None,
                )
            ],
        )
        return await _begin(conn, host, caller, "volume_create", volume_id, host.node)

    try:
        return await in_transaction(host.pool, work)
    except asyncpg.UniqueViolationError:
        raise Conflict("name_taken", f"A volume named {body.name} exists in this project.") from None


async def begin_delete(host: Host, caller: Caller, ref: str) -> Begun:
    """Begin to delete a volume that no VM has. Raises Conflict ``volume_in_use``; a repeat joins."""

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, caller)
        if earlier is not None:
            return earlier
        volume = await _locked(conn, caller, ref)
        live = await operations.find_live_of_volume(conn, volume.id)
        if live is not None and live.kind == "volume_delete":
            return await _join(conn, caller, volume.id, live)
        _refuse_if_busy(volume, live)
        if volume.vm_id is not None:
            raise Conflict("volume_in_use", f"Volume {volume.name} is attached to VM {volume.vm_id}. Detach it first.")
        await _refuse_if_in_snapshots(conn, volume)
        await volumes.set_status(conn, volume.id, "deleting")
        return await _begin(conn, host, caller, "volume_delete", volume.id, await _worker_of(conn, host, volume))

    return await in_transaction(host.pool, work)


async def begin_attach(host: Host, caller: Caller, ref: str, body: VolumeAttach) -> Begun:
    """Begin to plug a volume into a VM, running or not.

    Raises Conflict ``volume_in_use``, ``volume_state``, ``volume_elsewhere``, ``vm_busy`` or ``vm_state``;
    TerraceError ``unknown_vm``, ``too_many_volumes``, ``no_capacity``.
    """

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, caller)
        if earlier is not None:
            return earlier
        seen = await _find(conn, caller, ref)
        vm_ref = find_id(body.vm)
        vm_seen = await vms.find_id(conn, caller.identity.project_id, body.vm if vm_ref is None else vm_ref)
        if vm_seen is None:
            raise TerraceError(
                "unknown_vm", f"There is no VM {body.vm!r} in this project.", fields=(("vm", "is not a VM"),)
            )
        # the pool's row comes before the VM's, everywhere: whether it is needed is seen without a lock first
        pool_id = await vms.find_pool(conn, vm_seen[0])
        if seen.pool_id is None and pool_id is not None and seen.vm_id is None:
            await _claim_disk(conn, pool_id, seen.size_gib)
        vm = await vms.lock(conn, caller.identity.project_id, vm_seen[0])
        volume = await volumes.lock(conn, seen.id)
        if vm is None or volume is None or (volume.pool_id, volume.size_gib) != (seen.pool_id, seen.size_gib):
            raise Conflict("volume_busy", "The volume or the VM is being changed by another request. Try again.")
        live = await operations.find_live_of_volume(conn, volume.id)
        if live is not None and live.kind == "volume_attach" and live.vm_id == vm.id:
            return await _join(conn, caller, volume.id, live)
        _refuse_if_busy(volume, live)
        await _refuse_if_not_pluggable(conn, volume, vm)
        slot = await volumes.find_free_slot(conn, vm.id)
        if slot is None:
            raise TerraceError("too_many_volumes", f"A VM can have {MAX_VOLUMES} volumes, and {vm.name} has them.")
        await volumes.plug(conn, volume.id, vm.id, slot, vm.pool_id, delete_with_vm=body.delete_with_vm)
        binds = {"binds": True} if volume.pool_id is None else {}
        return await _begin_on_vm(conn, host, caller, "volume_attach", volume.id, vm, binds)

    return await in_transaction(host.pool, work)


async def begin_detach(host: Host, caller: Caller, ref: str) -> Begun:
    """Begin to unplug a volume. Raises Conflict ``volume_state``, ``volume_in_use`` (by a snapshot), ``vm_busy``."""

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, caller)
        if earlier is not None:
            return earlier
        volume, vm = await _locked_with_vm(conn, caller, ref)
        live = await operations.find_live_of_volume(conn, volume.id)
        if live is not None and live.kind == "volume_detach":
            return await _join(conn, caller, volume.id, live)
        _refuse_if_busy(volume, live)
        if vm is None:
            raise Conflict("volume_state", f"Volume {volume.name} is not attached to any VM.")
        await change.refuse_if_busy(conn, vm)
        if volume.status not in ("in_use", "error") or vm.desired == "deleted":
            # what was given up half-way may not be stored at all: it goes with its VM
            raise Conflict(
                "volume_state", f"Volume {volume.name} is {volume.status}, and its VM {vm.status}. Delete the VM."
            )
        await _refuse_if_in_snapshots(conn, volume)
        await volumes.set_status(conn, volume.id, "detaching")
        return await _begin_on_vm(conn, host, caller, "volume_detach", volume.id, vm, {})

    return await in_transaction(host.pool, work)


async def begin_resize(host: Host, caller: Caller, ref: str, size_gib: int) -> Begun:
    """Begin to grow a volume, in use or not; its present size is success.

    Raises TerraceError ``size_out_of_range`` for a smaller one, ``no_capacity``; Conflict ``vm_busy``, ``volume_busy``.
    """

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, caller)
        if earlier is not None:
            return earlier
        seen = await _find(conn, caller, ref)
        growth = size_gib - seen.size_gib
        if growth < 0:
            raise TerraceError(
                "size_out_of_range",
                f"Volume {seen.name} has {seen.size_gib} GiB, and a disk never shrinks.",
                fields=(("size_gib", f"must be at least {seen.size_gib}"),),
            )
        if growth:
            await _claim_disk(conn, seen.pool_id, growth, whole_gib=size_gib)
        volume, vm = await _locked_with_vm(conn, caller, ref)
        if (volume.id, volume.pool_id, volume.size_gib) != (seen.id, seen.pool_id, seen.size_gib):
            raise Conflict("volume_busy", "The volume is being changed by another request. Try again.")
        _refuse_if_busy(volume, await operations.find_live_of_volume(conn, volume.id))
        if volume.status not in ("available", "in_use"):
            raise Conflict("volume_state", f"A volume that is {volume.status} can't be resized.")
        if not growth:
            await idempotency.settle(conn, caller.key, response={"volume": volume.id})
            return Begun(volume.id, None)
        params = {"size_gib": size_gib}
        if vm is None:
            node = await _worker_of(conn, host, volume)
            return await _begin(conn, host, caller, "volume_resize", volume.id, node, params)
        await change.refuse_if_busy(conn, vm)
        return await _begin_on_vm(conn, host, caller, "volume_resize", volume.id, vm, params)

    return await in_transaction(host.pool, work)


async def _earlier(conn: Conn, caller: Caller) -> Begun | None:
    earlier = await idempotency.take(conn, caller.key)
    if earlier is None:
        return None
    if earlier.operation is not None and earlier.operation.volume_id is not None:
        return Begun(earlier.operation.volume_id, earlier.operation)
    return Begun(VolumeId(earlier.response["volume"]), None) if earlier.response is not None else None


async def _join(conn: Conn, caller: Caller, volume_id: VolumeId, live: Operation) -> Begun:
    await idempotency.settle(conn, caller.key, operation_id=live.id)
    return Begun(volume_id, live)


async def _find(conn: Conn, caller: Caller, ref: str) -> Volume:
    number = find_id(ref)
    volume = await volumes.find(conn, caller.identity.project_id, ref if number is None else number)
    if volume is None:
        raise NotFound("volume", ref)
    return volume


async def _locked(conn: Conn, caller: Caller, ref: str) -> Volume:
    volume = await volumes.lock(conn, (await _find(conn, caller, ref)).id)
    if volume is None:
        raise NotFound("volume", ref)
    return volume


async def _locked_with_vm(conn: Conn, caller: Caller, ref: str) -> tuple[Volume, Vm | None]:
    seen = await _find(conn, caller, ref)
    vm = await vms.lock(conn, caller.identity.project_id, seen.vm_id) if seen.vm_id is not None else None
    volume = await volumes.lock(conn, seen.id)
    if volume is None:
        raise NotFound("volume", ref)
    if volume.vm_id != (vm.id if vm is not None else None):
        raise Conflict("volume_busy", "The volume is being attached or detached by another request. Try again.")
    return volume, vm


async def _refuse_if_in_snapshots(conn: Conn, volume: Volume) -> None:
    taken = await snapshots.list_names_with_volume(conn, volume.id)
    if taken:
        which = f"snapshot {taken[0]}" if len(taken) == 1 else f"{len(taken)} snapshots ({taken[0]}, …)"
        raise Conflict(
            "volume_in_use", f"Volume {volume.name} is part of {which} of its VM. Delete what it is part of first."
        )


async def _worker_of(conn: Conn, host: Host, volume: Volume) -> str:
    """The node that works on a volume which no VM has: one that uses its pool."""
    if volume.pool_id in (None, host.pool_id):
        return host.node
    node = volume.node or await nodes.find_using_pool(conn, volume.pool_id)
    if node is None:
        raise TerraceError("storage_unavailable", f"No node that reaches volume {volume.name} is up.")
    return node


def _refuse_if_busy(volume: Volume, live: Operation | None) -> None:
    if live is not None:
        raise Conflict(
            "volume_busy",
            f"Operation {live.id} ({live.kind}) is still under way on volume {volume.name}. Wait for it to end.",
        )


async def _refuse_if_not_pluggable(conn: Conn, volume: Volume, vm: Vm) -> None:
    if volume.vm_id is not None:
        which = "this VM" if volume.vm_id == vm.id else f"VM {volume.vm_id}"
        raise Conflict("volume_in_use", f"Volume {volume.name} is attached to {which} already.")
    if volume.status != "available":
        raise Conflict("volume_state", f"A volume that is {volume.status} can't be attached.")
    await change.refuse_if_busy(conn, vm)
    if vm.status not in ("running", "paused", "stopped", "crashed"):
        raise Conflict("vm_state", f"A VM that is {vm.status} can't be given a volume.")
    if volume.pool_id not in (None, vm.pool_id):
        raise Conflict(
            "volume_elsewhere",
            f"Volume {volume.name} lies in the pool of node {volume.node}, and VM {vm.name} is on {vm.node}."
            if volume.node
            else f"Volume {volume.name} lies in another pool than the disks of VM {vm.name}.",
        )


async def _claim_disk(conn: Conn, pool_id: PoolId | None, size_gib: int, *, whole_gib: int | None = None) -> None:
    """Claim disk for a volume (``whole_gib`` in all); what is not bound to a pool must fit into one some day."""
    if pool_id is not None and await nodes.claim_disk(conn, pool_id, size_gib):
        return
    if not await nodes.has_pool_for(conn, whole_gib or size_gib):
        raise TerraceError(
            "size_out_of_range",
            "No pool is large enough for this volume, even when empty.",
            fields=(("size_gib", "is more than any pool has"),),
        )
    if pool_id is not None:
        raise TerraceError("no_capacity", "The pool has no room for so much more disk now.")


async def _begin(
    conn: Conn,
    host: Host,
    caller: Caller,
    kind: str,
    volume_id: VolumeId,
    node: str,
    params: Mapping[str, Any] | None = None,
    vm: Vm | None = None,
) -> Begun:
    steps = STEP_NAMES[kind]
    operation = await operations.insert(
        conn,
        NewOperation(
            kind=kind,
            project_id=caller.identity.project_id,
            node=node,
            steps=steps,
            origin=host.node,
            token_id=caller.identity.token_id,
            request_id=caller.request_id,
            vm_id=vm.id if vm else None,
            vm_name=vm.name if vm else None,
            volume_id=volume_id,
            epoch=vm.epoch if vm else 1,
            cursor=1 if steps[0] == "claim" else 0,
            params=params or {},
        ),
    )
    await idempotency.settle(conn, caller.key, operation_id=operation.id)
    if node != host.node:
        await operations.notify(conn, change.wake_channel(node), "wake")
    return Begun(volume_id, operation, inserted=True)


async def _begin_on_vm(
    conn: Conn, host: Host, caller: Caller, kind: str, volume_id: VolumeId, vm: Vm, params: Mapping[str, Any]
) -> Begun:
    return await _begin(conn, host, caller, kind, volume_id, vm.node, params, vm)
