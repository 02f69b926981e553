"""Changes of images, and their bytes for other nodes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import asyncpg
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from internal_api import change, outcome, simple_change, snapshot_change
from internal_api.caller import Caller, Signed, SignedStream, ThisNode
from internal_api.host import Host
from internal_api.node import Node
from internal_api.workflows import STEP_NAMES, image_bytes, import_image, remove_image
from terrace import log
from terrace.api.image import ImageCreate, image_view
from terrace.api.name import check_name
from terrace.db import Conn, in_transaction
from terrace.engine.waiters import is_live
from terrace.errors import Conflict, NotFound, TerraceError, Transient
from terrace.http import json_response
from terrace.store import idempotency, image_removals, images, operations
from terrace.store.operations import NewOperation, Operation
from terrace.types import Identity, find_id

router = APIRouter(prefix="/internal/v1/images", tags=["images"])
_log = log.get(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@router.post("", summary="Import an image from a URL, or copy one from a VM")
async def create(caller: Signed, node: ThisNode) -> Response:
    """201 when available, 202 when not yet."""
    body = ImageCreate.model_validate_json(caller.body)
    if body.vm is not None:
        begun = await snapshot_change.begin_capture(node.host, caller, body)
        return await _answer(node, caller, begun.operation, inserted=begun.inserted)
    operation = await _begin_import(node, caller, body)
    return await _answer(node, caller, operation, inserted=True)


async def _begin_import(node: Node, caller: Caller, body: ImageCreate) -> Operation:
    async def work(conn: Conn) -> Operation:
        earlier = await idempotency.take(conn, caller.key)
        if earlier is not None and earlier.operation is not None:
            return earlier.operation
        image = await images.insert(conn, caller.identity.project_id, body.name)
        operation = await operations.insert(
            conn,
            NewOperation(
                kind=import_image.KIND,
                project_id=caller.identity.project_id,
                node=node.host.node,
                steps=STEP_NAMES[import_image.KIND],
                origin=node.host.node,
                token_id=caller.identity.token_id,
                request_id=caller.request_id,
                image_id=image.id,
                cursor=1,
                params={"url": body.url, "checksum": body.checksum, "format": body.format},
            ),
        )
        await images.set_operation(conn, image.id, operation.id)
        await idempotency.settle(conn, caller.key, operation_id=operation.id)
        return operation

    try:
        return await in_transaction(node.host.pool, work)
    except asyncpg.UniqueViolationError:
        raise _taken(body.name) from None


async def _answer(node: Node, caller: Caller, operation: Operation, *, inserted: bool) -> Response:
    operation = await outcome.wait_for(node, caller, operation, inserted=inserted)
    assert operation.image_id is not None
    async with node.host.pool.acquire() as conn:
        image = await images.find_by_id(conn, operation.image_id)
    if image is None:
        raise NotFound("image", operation.image_id)
    if is_live(operation):
        return json_response(image_view(image), 202, outcome.location(operation))
    return json_response(image_view(image), 201, {"Location": f"/api/v1/images/{image.id}"})


@router.post("/upload", summary="Import an image from the request's body")
async def upload(
    request: Request,
    caller: SignedStream,
    node: ThisNode,
    name: str = Query(),
    format: str | None = Query(default=None, pattern=r"^(qcow2|raw)$"),
    checksum: str | None = Query(default=None, pattern=r"^sha256:[0-9a-f]{64}$"),
) -> Response:
    """201 with the image. Nothing is left of an upload that is cut off, broken or not what it says."""
    try:
        check_name(name)
    except ValueError as exc:
        raise TerraceError("invalid_request", f"name: {exc}.") from None
    host = node.host
    async with host.pool.acquire() as conn:
        taken = await images.find(conn, caller.identity.project_id, name) is not None
        if taken and not await idempotency.is_known(conn, caller.key):
            raise _taken(name)
    try:
        facts = await host.storage.import_image(
            request.stream(),
            format=format,
            checksum=checksum.removeprefix("sha256:") if checksum else None,
            max_bytes=host.settings.max_image_bytes,
        )
    except ClientDisconnect:
        raise TerraceError("bad_request", "The upload was cut off.") from None
    # only now it is known what the request said
    said = hashlib.sha256(f"{request.scope['query_string']!r} {facts.sha256}".encode()).digest()
    caller = replace(caller, key=replace(caller.key, body_hash=said))

    async def work(conn: Conn) -> dict[str, Any]:
        try:
            image = await images.insert(conn, caller.identity.project_id, name)
        except asyncpg.UniqueViolationError:
            raise _taken(name) from None
        await images.set_available(conn, image.id, node=host.node, **import_image.facts_of(facts))
        await confirm(conn)
        stored = await images.find_by_id(conn, image.id)
        assert stored is not None
        return image_view(stored)

    try:
        async with image_bytes.stored(host, facts.sha256) as confirm:
            return await simple_change.run(host.pool, caller, 201, work)
    except TerraceError:
        await image_bytes.remove_unwanted(host, facts.sha256)
        raise


@router.delete("/{ref}", summary="Delete an image")
async def delete(ref: str, caller: Signed, node: ThisNode) -> Response:
    """204; 409 ``image_in_use`` with their number while VMs are made from it, or volumes of the pool are."""
    number = find_id(ref)
    wanted = ref if number is None else number
    await _refuse_if_cloned(node.host, caller, wanted)
    removals: list[Operation] = []

    async def work(conn: Conn) -> None:
        removals.clear()
        image = await images.lock(conn, caller.identity.project_id, wanted)
        if image is None:
            raise NotFound("image", ref)
        # one whose import was given up is nobody's work any more
        if image.status == "importing" and await images.has_live_operation(conn, image.id):
            raise Conflict("image_not_ready", f"Image {image.name} is still being imported.")
        count = await images.count_vms(conn, image.id)
        if count:
            raise _in_use(image.name, count)
        await images.delete(conn, image.id)
        if image.sha256 is None:
            return
        await image_removals.lock(conn, image.sha256)  # of two images of the same bytes, one goes last
        if not await images.is_wanted(conn, image.sha256):
            removals.extend(await _begin_removals(conn, node.host.node, caller.identity, image, caller.request_id))

    try:
        response = await simple_change.run(node.host.pool, caller, 204, work)
    except asyncpg.ForeignKeyViolationError:
        raise _in_use(ref, 1) from None
    for operation in removals:
        node.submit(operation)
    return response


async def _refuse_if_cloned(host: Host, caller: Caller, ref: int | str) -> None:
    """Raise Conflict for the last image of bytes that volumes in this node's pool are cloned from.

    That may be more than the rows of VMs say. A pool that does not answer holds nothing up: bytes that are in use
    stay in it anyhow.
    """
    async with host.pool.acquire() as conn:
        image = await images.find(conn, caller.identity.project_id, ref)
        if image is None or image.sha256 is None or await idempotency.is_known(conn, caller.key):
            return
        # VMs are counted by the deletion itself
        if await images.count_vms(conn, image.id) or await images.is_wanted(conn, image.sha256, but=image.id):
            return
    try:
        count = await host.storage.count_children(image.sha256)
    except Transient as exc:
        _log.warning("clones_not_counted", image=image.id, error=str(exc))
        return
    if count:
        raise Conflict(
            "image_in_use",
            f"{count} volume(s) in the storage pool are cloned from image {image.name}.",
            extra={"vms": 0, "volumes": count},
        )


async def _begin_removals(
    conn: Conn, origin: str, who: Identity, image: images.Image, request_id: str
) -> list[Operation]:
    """One operation for each node that has the image's bytes."""
    assert image.sha256 is not None
    begun = []
    holders = [node for node, _ in await images.list_locations(conn, image.sha256)]
    for node in holders:
        begun.append(
            await operations.insert(
                conn,
                NewOperation(
                    kind=remove_image.KIND,
                    project_id=who.project_id,
                    node=node,
                    steps=STEP_NAMES[remove_image.KIND],
                    origin=origin,
                    token_id=who.token_id,
                    request_id=request_id,
                    image_id=image.id,
                    params={"sha256": image.sha256},
                ),
            )
        )
        if node != origin:
            await operations.notify(conn, change.wake_channel(node), "wake")
    return begun


@router.get("/{sha256}/content", summary="An image's bytes, for another node")
async def content(sha256: str, caller: Signed, node: ThisNode) -> Response:
    """The image's file as it is."""
    path = node.host.storage.image_path(sha256) if _SHA256.fullmatch(sha256) else None
    if path is None:
        raise NotFound("image", sha256)
    return FileResponse(path, media_type="application/octet-stream")


def _taken(name: str) -> Conflict:
    return Conflict("name_taken", f"An image named {name} exists in this project.")


def _in_use(name: str, count: int) -> Conflict:
    return Conflict("image_in_use", f"{count} VM(s) are made from image {name}.", extra={"vms": count})
