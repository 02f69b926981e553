"""Changes of snapshots, and images of VMs: what a request may begin, decided in one transaction each."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from internal_api import change
from internal_api.caller import Caller
from internal_api.host import Host
from internal_api.workflows import STEP_NAMES, capture_image
from terrace.api.image import ImageCreate
from terrace.api.snapshot import SnapshotCreate, SnapshotRestore
from terrace.db import Conn, in_transaction
from terrace.errors import Conflict, NotFound, TerraceError
from terrace.store import idempotency, images, operations, snapshots, vms, volumes
from terrace.store.operations import NewOperation, Operation
from terrace.store.snapshots import Snapshot
from terrace.store.vms import Vm
from terrace.types import ImageId, SnapshotId, VolumeId, find_id

# Off, or with a guest whose disks can be frozen or cut at a moment.
_STEADY = ("running", "paused", "stopped", "crashed")
_OFF = ("stopped", "crashed", "error")


@dataclass(frozen=True, slots=True)
class Begun:
    """What a request has led to. ``inserted``: the operation is this request's own."""

    operation: Operation
    inserted: bool = False


async def begin_create(host: Host, caller: Caller, vm_ref: str, body: SnapshotCreate) -> Begun:
    """Begin to take a snapshot of all disks of a VM. Raises Conflict ``name_taken``, ``vm_busy``, ``vm_state``."""

    async def decide(conn: Conn, vm: Vm) -> Begun:
        await change.refuse_if_busy(conn, vm)
        _refuse_if_unsteady(vm, "be snapshotted")
        disks: dict[VolumeId | None, int] = {None: vm.disk_gib}
        # read again: the VM's lock may have been waited for while a volume was unplugged
        for volume_id, size_gib in (await volumes.list_sizes(conn, vm.id)).items():
            disks[volume_id] = size_gib
        snapshot_id = await snapshots.insert(conn, uuid.uuid4(), caller.identity.project_id, vm.id, body.name, disks)
        return await _begin(conn, host, caller, vm, "snapshot_create", snapshot_id=snapshot_id)

    try:
        return await _on_vm(host, caller, vm_ref, decide)
    except asyncpg.UniqueViolationError:
        raise Conflict("name_taken", f"A snapshot named {body.name} of this VM exists.") from None


async def begin_restore(host: Host, caller: Caller, vm_ref: str, ref: str, body: SnapshotRestore) -> Begun:
    """Begin to give a VM's disks back what they held. Raises Conflict ``vm_state`` for a running VM without force."""

    async def decide(conn: Conn, vm: Vm) -> Begun:
        snapshot = await _found(conn, vm, ref)
        live = await operations.find_live_of_vm(conn, vm.id)
        if live is not None and (live.kind, live.snapshot_id) == ("snapshot_restore", snapshot.id):
            return await _join(conn, caller, live)
        await change.refuse_if_busy(conn, vm)
        _refuse_if_not_whole(snapshot, "restored")
        if vm.status not in _OFF and not body.force:
            raise Conflict(
                "vm_state",
                f"VM {vm.name} is {vm.status}, and what it has written since would be lost. Stop it first, or restore"
                " with force.",
            )
        await snapshots.set_status(conn, snapshot.id, "restoring")
        # a VM that was to run and had crashed is started by a forced restore, too
        params = {"start": body.force and vm.desired == "running"}
        return await _begin(conn, host, caller, vm, "snapshot_restore", snapshot_id=snapshot.id, params=params)

    return await _on_vm(host, caller, vm_ref, decide)


async def begin_delete(host: Host, caller: Caller, vm_ref: str, ref: str) -> Begun:
    """Begin to delete a snapshot; a repeat joins."""

    async def decide(conn: Conn, vm: Vm) -> Begun:
        snapshot = await _found(conn, vm, ref)
        live = await operations.find_live_of_vm(conn, vm.id)
        if live is not None and (live.kind, live.snapshot_id) == ("snapshot_delete", snapshot.id):
            return await _join(conn, caller, live)
        await change.refuse_if_busy(conn, vm)
        await snapshots.set_status(conn, snapshot.id, "deleting")
        return await _begin(conn, host, caller, vm, "snapshot_delete", snapshot_id=snapshot.id)

    return await _on_vm(host, caller, vm_ref, decide)


async def begin_capture(host: Host, caller: Caller, body: ImageCreate) -> Begun:
    """Begin to make an image of a VM's system disk, or of a snapshot of it.

    Raises TerraceError ``unknown_vm``, ``unknown_snapshot``; Conflict ``name_taken``, ``vm_busy``, ``vm_state``.
    """
    assert body.vm is not None

    async def decide(conn: Conn, vm: Vm) -> Begun:
        await change.refuse_if_busy(conn, vm)
        _refuse_if_unsteady(vm, "be copied")
        params: dict[str, Any] = {"snapshot": str(uuid.uuid4()), "temporary": True}
        if body.snapshot is not None:
            number = find_id(body.snapshot)
            snapshot = await snapshots.lock(conn, vm.id, body.snapshot if number is None else number)
            if snapshot is None:
                raise TerraceError(
                    "unknown_snapshot",
                    f"VM {vm.name} has no snapshot {body.snapshot[:80]!r}.",
                    fields=(("snapshot", "is not a snapshot of this VM"),),
                )
            _refuse_if_not_whole(snapshot, "copied")
            params = {"snapshot": str(snapshot.uuid), "temporary": False}
        image = await images.insert(conn, caller.identity.project_id, body.name)
        begun = await _begin(conn, host, caller, vm, capture_image.KIND, image_id=image.id, params=params)
        await images.set_operation(conn, image.id, begun.operation.id)
        return begun

    try:
        return await _on_vm(host, caller, body.vm, decide)
    except NotFound:
        raise TerraceError(
            "unknown_vm", f"There is no VM {body.vm[:80]!r} in this project.", fields=(("vm", "is not a VM"),)
        ) from None
    except asyncpg.UniqueViolationError:
        raise Conflict("name_taken", f"An image named {body.name} exists in this project.") from None


async def _on_vm(host: Host, caller: Caller, vm_ref: str, decide: Callable[[Conn, Vm], Awaitable[Begun]]) -> Begun:
    """Decide in one transaction, with the VM locked, what the request begins; a repeat gets what was begun."""

    async def work(conn: Conn) -> Begun:
        earlier = await idempotency.take(conn, caller.key)
        if earlier is not None and earlier.operation is not None:
            return Begun(earlier.operation)
        number = find_id(vm_ref)
        vm = await vms.lock(conn, caller.identity.project_id, vm_ref if number is None else number)
        if vm is None:
            raise NotFound("VM", vm_ref)
        return await decide(conn, vm)

    return await in_transaction(host.pool, work)


async def _join(conn: Conn, caller: Caller, live: Operation) -> Begun:
    await idempotency.settle(conn, caller.key, operation_id=live.id)
    return Begun(live)


async def _found(conn: Conn, vm: Vm, ref: str) -> Snapshot:
    number = find_id(ref)
    snapshot = await snapshots.lock(conn, vm.id, ref if number is None else number)
    if snapshot is None:
        raise NotFound("snapshot", ref)
    return snapshot


def _refuse_if_unsteady(vm: Vm, what: str) -> None:
    if vm.status not in _STEADY:
        raise Conflict("vm_state", f"A VM that is {vm.status} can't {what}.")


def _refuse_if_not_whole(snapshot: Snapshot, what: str) -> None:
    if snapshot.status != "available":
        raise Conflict("snapshot_state", f"A snapshot that is {snapshot.status} can't be {what}.")


async def _begin(
    conn: Conn,
    host: Host,
    caller: Caller,
    vm: Vm,
    kind: str,
    *,
    snapshot_id: SnapshotId | None = None,
    image_id: ImageId | None = None,
    params: Mapping[str, Any] | None = None,
) -> Begun:
    steps = STEP_NAMES[kind]
    operation = await operations.insert(
        conn,
        NewOperation(
            kind=kind,
            project_id=caller.identity.project_id,
            node=vm.node,
            steps=steps,
            origin=host.node,
            token_id=caller.identity.token_id,
            request_id=caller.request_id,
            vm_id=vm.id,
            vm_name=vm.name,
            image_id=image_id,
            snapshot_id=snapshot_id,
            epoch=vm.epoch,
            cursor=1 if steps[0] == "claim" else 0,
            params=params or {},
        ),
    )
    await idempotency.settle(conn, caller.key, operation_id=operation.id)
    if vm.node != host.node:
        await operations.notify(conn, change.wake_channel(vm.node), "wake")
    return Begun(operation, inserted=True)
