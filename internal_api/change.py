"""Changes of existing VMs: which operation begins, joins, or replaces another."""

from __future__ import annotations

from dataclasses import dataclass

from internal_api.host import Host
from internal_api.workflows import STEP_NAMES
from terrace import vm_state
from terrace.api.vm import ActionBody
from terrace.db import Conn, in_transaction
from terrace.errors import Conflict, NotFound
from terrace.store import idempotency, operations, vms
from terrace.store.operations import NewOperation, Operation
from terrace.store.vms import OwnedVm, Vm
from terrace.types import Identity, VmId, find_id
from terrace.vm_state import Action, VmStatus


@dataclass(frozen=True, slots=True)
class Begun:
    """What a request for a change has led to; no operation when nothing was left to do."""

    vm_id: VmId | None
    operation: Operation | None
    superseded: Operation | None = None
    inserted: bool = False  # the operation is this request's own


def wake_channel(node: str) -> str:
    """The notification channel on which a node is woken."""
    return f"terrace_node_{node}"


async def begin_action(
    host: Host,
    who: Identity,
    ref: str,
    action: Action,
    body: ActionBody,
    key: idempotency.Key,
    request_id: str,
) -> Begun:
    """Begin an action on a VM; Conflict ``vm_busy`` or ``vm_state`` when it can't begin now."""

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, key)
        if earlier is not None:
            return earlier
        vm = await _locked(conn, who, ref)
        kind = f"vm_{action}"
        joined, superseded = await _make_way(conn, vm, kind)
        if joined is not None:
            await idempotency.settle(conn, key, operation_id=joined.id)
            return Begun(vm.id, joined)
        if superseded is None:
            status = VmStatus(vm.status)
            if status in vm_state.ALREADY[action]:
                # a stop of a VM that is off calls off its start by the node, too
                await vms.set_desired(conn, vm.id, vm_state.DESIRED[action])
                await idempotency.settle(conn, key, response={"vm": vm.id})
                return Begun(vm.id, None)
            if status not in vm_state.ALLOWED_FROM[action]:
                allowed = ", ".join(vm_state.allowed_actions(status)) or "none"
                raise Conflict("vm_state", f"A VM that is {status} can't {action}. Possible now: {allowed}.")
        return await _begin(
            conn, host, who, vm, kind, key, request_id, superseded,
            during=vm_state.DURING[action], desired=vm_state.DESIRED[action], timeout_s=body.timeout_s,
        )  # fmt: skip

    return await in_transaction(host.pool, work)


async def begin_delete(host: Host, who: Identity, ref: str, key: idempotency.Key, request_id: str) -> Begun:
    """Begin to delete a VM; a repeat joins the deletion under way."""

    async def work(conn: Conn) -> Begun:
        earlier = await _earlier(conn, key)
        if earlier is not None:
            return earlier
        vm = await _locked(conn, who, ref)
        joined, superseded = await _make_way(conn, vm, "vm_delete")
        if joined is not None:
            await idempotency.settle(conn, key, operation_id=joined.id)
            return Begun(vm.id, joined)
        return await _begin(
            conn, host, who, vm, "vm_delete", key, request_id, superseded,
            during=VmStatus.DELETING, desired="deleted", timeout_s=None,
        )  # fmt: skip

    return await in_transaction(host.pool, work)


async def begin_own_start(host: Host, vm: OwnedVm) -> Operation | None:
    """Begin to start a VM because its node has come up; None when that is not wanted, or an operation is live.

    A VM that an operation has given up is not started: its disks may be half-way between two contents.
    """

    async def work(conn: Conn) -> Operation | None:
        locked = await vms.lock(conn, vm.project_id, vm.id)
        if locked is None or locked.desired != "running" or locked.status == VmStatus.ERROR:
            return None
        if await operations.find_live_of_vm(conn, vm.id) is not None:
            return None
        new = _new(host, locked, "vm_start", None, "node-start", None, during=VmStatus.STARTING, desired="running")
        return await operations.insert(conn, new)

    return await in_transaction(host.pool, work)


async def _earlier(conn: Conn, key: idempotency.Key) -> Begun | None:
    earlier = await idempotency.take(conn, key)
    if earlier is None:
        return None
    if earlier.operation is not None:
        return Begun(earlier.operation.vm_id, earlier.operation)
    return Begun(VmId(earlier.response["vm"]), None) if earlier.response is not None else None


async def _locked(conn: Conn, who: Identity, ref: str) -> Vm:
    number = find_id(ref)
    vm = await vms.lock(conn, who.project_id, ref if number is None else number)
    if vm is None:
        raise NotFound("VM", ref)
    return vm


async def _make_way(conn: Conn, vm: Vm, kind: str) -> tuple[Operation | None, Operation | None]:
    """An equal live operation to join, and a live one that was superseded; Conflict for any other."""
    live = await operations.find_live_of_vm(conn, vm.id)
    if live is None:
        return None, None
    if live.kind == kind:
        return live, None
    if live.kind in vm_state.SUPERSEDED_BY.get(kind, frozenset()):
        await operations.supersede(conn, live.id, kind)
        return None, live
    raise _busy(live)


async def refuse_if_busy(conn: Conn, vm: Vm) -> None:
    """Raise Conflict ``vm_busy`` when an operation on the VM, which the caller has locked, is live."""
    live = await operations.find_live_of_vm(conn, vm.id)
    if live is not None:
        raise _busy(live)


def _busy(live: Operation) -> Conflict:
    return Conflict("vm_busy", f"Operation {live.id} ({live.kind}) is still under way on this VM. Wait for it to end.")


async def _begin(
    conn: Conn,
    host: Host,
    who: Identity,
    vm: Vm,
    kind: str,
    key: idempotency.Key,
    request_id: str,
    superseded: Operation | None,
    *,
    during: VmStatus | None,
    desired: str,
    timeout_s: int | None,
) -> Begun:
    new = _new(host, vm, kind, who, request_id, timeout_s, during=during, desired=desired)
    operation = await operations.insert(conn, new)
    await idempotency.settle(conn, key, operation_id=operation.id)
    if vm.node != host.node:
        await operations.notify(conn, wake_channel(vm.node), "wake")
    return Begun(vm.id, operation, superseded, inserted=True)


def _new(
    host: Host,
    vm: Vm,
    kind: str,
    who: Identity | None,
    request_id: str,
    timeout_s: int | None,
    *,
    during: VmStatus | None,
    desired: str,
) -> NewOperation:
    return NewOperation(
        kind=kind,
        project_id=vm.project_id,
        node=vm.node,
        steps=STEP_NAMES[kind],
        origin=host.node,
        token_id=who.token_id if who else None,
        request_id=request_id,
        vm_id=vm.id,
        vm_name=vm.name,
        epoch=vm.epoch,
        params={"timeout_s": timeout_s} if timeout_s else {},
        during=during,
        desired=desired,
    )
