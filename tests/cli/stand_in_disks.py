"""The stand-in API's volumes, snapshots and pools."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stand_in_world import BORN, Json, World, accepted, missing, problem
from starlette.responses import JSONResponse, Response


def _find(things: dict[str, Json], ref: str) -> Json | None:
    return next((one for one in things.values() if ref in (one["name"], str(one["id"]))), None)


def _busy(world: World, vm: Json) -> Response | None:
    busy = world.find_busy(vm["id"])
    return problem(409, "vm_busy", f"Operation {busy['id']} is under way on this VM.") if busy else None


def volumes(world: World, method: str, rest: Sequence[str], body: bytes) -> Response:
    wanted = json.loads(body or b"{}")
    if not rest:
        volume = world.add_volume(wanted["name"], status="creating", size_gib=wanted["size_gib"])
        return accepted(volume, _volume_operation(world, "create", volume, None, {"status": "available"}))
    volume = _find(world.volumes, rest[0]) or {}
    if not volume:
        return missing("volume", rest[0])
    if method == "GET":
        return JSONResponse(volume)
    vm = world.vms.get(volume["vm_name"] or wanted.get("vm"))
    if vm is not None and (refused := _busy(world, vm)):
        return refused
    match rest[-1]:
        case "attach":
            if vm is None:
                return problem(422, "unknown_vm", "There is no such VM.")
            operation = _volume_operation(world, "attach", volume, vm)
            operation["_on_done"] = lambda: world.plug(volume, vm)
        case "detach":
            free: Json = {"status": "available", "vm": None, "vm_name": None, "device": None}
            operation = _volume_operation(world, "detach", volume, vm, free)
        case "resize":
            if wanted["size_gib"] == volume["size_gib"]:
                return JSONResponse(volume)
            operation = _volume_operation(world, "resize", volume, vm, {"size_gib": wanted["size_gib"]})
        case _:
            if vm is not None:
                return problem(409, "volume_in_use", f"Volume {volume['name']} is attached to VM {vm['id']}.")
            operation = _volume_operation(world, "delete", volume, None)
            operation["_on_done"] = lambda: world.volumes.pop(volume["name"])
    return accepted(volume, operation)


def _volume_operation(world: World, what: str, volume: Json, vm: Json | None, after: Json | None = None) -> Json:
    operation = world.add_operation(f"volume_{what}", vm, lambda: volume.update(after or {}))
    operation["volume"] = volume["id"]
    return operation


def snapshots(world: World, method: str, ref: str, rest: Sequence[str], body: bytes) -> Response:
    vm = _find(world.vms, ref)
    if vm is None:
        return missing("VM", ref)
    if not rest:
        if method == "GET":
            return JSONResponse([one for one in world.snapshots.values() if one["vm"] == vm["id"]])
        snapshot = world.add_snapshot(json.loads(body)["name"], vm, status="creating", consistency=None)
        done = {"status": "available", "consistency": "filesystem"}
        return accepted(snapshot, world.add_operation("snapshot_create", vm, lambda: snapshot.update(done)))
    snapshot = _find(world.snapshots, rest[0]) or {}
    if not snapshot:
        return missing("snapshot", rest[0])
    if method == "GET":
        return JSONResponse(snapshot)
    if refused := _busy(world, vm):
        return refused
    if method == "DELETE":
        return accepted(snapshot, world.add_operation("snapshot_delete", vm, lambda: _drop(world, snapshot)))
    if vm["status"] == "running" and not json.loads(body or b"{}").get("force"):
        return problem(409, "vm_state", f"VM {vm['name']} is running. Stop it first, or restore with force.")
    return accepted(snapshot, world.add_operation("snapshot_restore", vm))


def _drop(world: World, snapshot: Json) -> None:
    del world.snapshots[snapshot["name"]]


def drift(world: World, node: str, rest: Sequence[str]) -> Response:
    found = {"node": node, "pool": "dir-hv1", "storage": "dir", "checked_at": BORN, "differences": world.differences}
    if not rest:
        return JSONResponse(found)
    orphans = [one for one in world.differences if one["kind"] == "orphan"]
    if not orphans:
        return JSONResponse(found)
    left = [one for one in world.differences if one not in orphans]
    clean = world.add_operation("pool_clean", None, lambda: setattr(world, "differences", left))
    return accepted(found, clean)
