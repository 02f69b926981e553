"""How every route of the public API treats a request before its own code runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from external_api.auth import identify
from external_api.media_type import may_be_json, media_type
from terrace import strict_json
from terrace.errors import TerraceError


class _ReadRequest(Request):
    """A request whose JSON body has been read already."""

    value: Any = None

    async def json(self) -> Any:
        return self.value


class PublicRoute(APIRoute):
    """Asks who calls before a body is looked at, and reads JSON strictly. (FastAPI does neither.)"""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            await identify(request)
            if not takes_json:
                return await handle(request)
            # FastAPI looks at the type again; a body without one is JSON to it
            headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            read = _ReadRequest({**request.scope, "headers": headers}, request.receive)
            if body := await read.body():
                if not may_be_json(media_type(request)):
                    raise TerraceError(
                        "unsupported_media_type", "Send the body as JSON, with `Content-Type: application/json`."
                    )
                read.value = strict_json.loads(body)
            return await handle(read)

        return handle_strictly
