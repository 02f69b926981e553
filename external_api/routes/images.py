"""Images."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from external_api.answers import problems
from external_api.auth import Caller
from external_api.edge import ThisEdge
from external_api.media_type import may_be_json, media_type
from external_api.public_route import PublicRoute
from external_api.ref import parse_ref
from external_api.routes.paging import Cursor, Limit, page
from terrace import cursor as cursors
from terrace import strict_json
from terrace.api.image import ImageCreate, ImageOut, image_view
from terrace.api.name import check_name
from terrace.errors import NotFound, TerraceError
from terrace.http import json_response
from terrace.store import images

router = APIRouter(prefix="/api/v1/images", tags=["images"], route_class=PublicRoute)
_INTERNAL = "/internal/v1/images"
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ImageCreate"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "",
    summary="Import an image",
    status_code=201,
    response_model=ImageOut,
    openapi_extra=_BODY,
    responses={
        202: {"model": ImageOut, "description": "Still importing; `Location` is the operation"},
        **problems(400, 409, 413, 415, 422, 507),
    },
)
async def create(
    request: Request,
    who: Caller,
    edge: ThisEdge,
    name: str | None = Query(default=None, max_length=63, description="Upload: the image's name"),
    format: str | None = Query(
        default=None, pattern="^(qcow2|raw)$", description="Upload: found by looking, if absent"
    ),
    checksum: str | None = Query(
        default=None, pattern="^sha256:[0-9a-f]{64}$", description="Upload: refused when the bytes differ"
    ),
) -> Response:
    """Import a qcow2 or raw image: from a URL with a JSON body, or by upload of its bytes
    (`application/octet-stream`) with `name`, `format` and `checksum` in the query.
    """
    kind = media_type(request)
    if kind == "application/octet-stream":
        if name is None:
            raise TerraceError(
                "invalid_request", "name: is required in the query of an upload.", fields=(("name", "is required"),)
            )
        try:
            check_name(name)
        except ValueError as exc:
            raise TerraceError("invalid_request", f"name: {exc}.", fields=(("name", str(exc)),)) from None
        given = {"name": name, "format": format, "checksum": checksum}
        # the query is signed: it must be written as the client beneath writes it
        query = urlencode({field: value for field, value in given.items() if value is not None}, safe=":")
        return await edge.forwarder.stream(request, who, f"{_INTERNAL}/upload", query, request.stream())
    if not may_be_json(kind):
        raise TerraceError(
            "unsupported_media_type",
            "Send JSON with a url, or the image's bytes as application/octet-stream.",
        )
    body = _parse(await request.body())
    return await edge.forwarder.send(request, who, "POST", _INTERNAL, body.model_dump_json(exclude_unset=True).encode())


def _parse(content: bytes) -> ImageCreate:
    try:
        return ImageCreate.model_validate(strict_json.loads(content))
    except ValidationError as exc:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from None


@router.get("", summary="List images", response_model=list[ImageOut], responses=problems(400, 422))
async def list_(request: Request, who: Caller, edge: ThisEdge, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """A page of the project's images by id."""
    after = cursors.decode(cursor, start=0)
    async with edge.pool.acquire() as conn:
        found = await images.list_of_project(conn, who.project_id, after=after, limit=limit + 1)
    return page(request, [image_view(image) for image in found], limit)


@router.get("/{ref}", summary="Get an image", response_model=ImageOut, responses=problems(404))
async def get(ref: str, who: Caller, edge: ThisEdge) -> Response:
    """One image by id or name."""
    wanted = parse_ref("image", ref)
    async with edge.pool.acquire() as conn:
        image = await images.find(conn, who.project_id, wanted)
    if image is None:
        raise NotFound("image", ref)
    return json_response(image_view(image))


@router.delete(
    "/{ref}",
    summary="Delete an image",
    status_code=204,
    response_class=Response,
    responses=problems(400, 404, 409, 422),
)
async def delete(ref: str, request: Request, who: Caller, edge: ThisEdge) -> Response:
    """Delete an image from which no VM is made any more."""
    return await edge.forwarder.send(request, who, "DELETE", f"{_INTERNAL}/{parse_ref('image', ref)}")
