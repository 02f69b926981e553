"""The public API as a test uses it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from support.polling import eventually

_numbers = itertools.count(1)


def new_name(stem: str = "vm") -> str:
    """A name that no other test has."""
    return f"{stem}-{os.getpid()}-{next(_numbers)}"


class Api:
    """An HTTP client with a token; paths begin below ``/api/v1``."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, token: str) -> AsyncIterator[Api]:
        """A client that is closed at the end."""
        headers = {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers=headers, timeout=70, limits=limits, trust_env=False
        ) as http:
            yield cls(http)

    async def create(self, name: str = "", **fields: Any) -> dict[str, Any]:
        """A small VM that has started."""
        response = await self.post_vm(name, **fields)
        assert response.status_code == 201, response.text
        vm: dict[str, Any] = response.json()
        return vm

    async def post_vm(self, name: str = "", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """The answer to a request for a small VM."""
        body = {"name": name or new_name(), "ram_mib": 64, "disk_gib": 1, **fields}
        return await self.http.post("/vms", json=body, headers=headers)

    async def act(self, vm: dict[str, Any], action: str, **body: Any) -> httpx.Response:
        """The answer to an action on a VM."""
        return await self.http.post(f"/vms/{vm['id']}/actions/{action}", json=body or None)

    async def get(self, path: str) -> Any:
        """JSON at a path that must be there."""
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def pages(self, path: str) -> AsyncIterator[list[dict[str, Any]]]:
        """A list page by page, following its Link headers."""
        following: str | None = path
        while following is not None:
            response = await self.http.get(following)
            assert response.status_code == 200, response.text
            yield response.json()
            following = response.links.get("next", {}).get("url")
            if following is not None:
                following = str(self.http.base_url.join(following))

    async def all(self, path: str) -> list[dict[str, Any]]:
        """A whole list."""
        return [item async for page in self.pages(path) for item in page]

    async def operation(self, response: httpx.Response, *, within_s: float = 15.0) -> dict[str, Any]:
        """The operation that a 202 points to, once it has ended."""
        assert response.status_code == 202, response.text
        url = str(self.http.base_url.join(response.headers["location"]))

        async def ended() -> dict[str, Any] | None:
            op: dict[str, Any] = (await self.http.get(url)).raise_for_status().json()
            return None if op["state"] in ("pending", "running", "undoing") else op

        found = await eventually(ended, within_s=within_s)
        assert found is not None
        return found

    async def delete_all_vms(self) -> None:
        """Leave nothing behind for the next test."""

        async def are_gone() -> bool:
            left = await self.all("/vms?limit=1000")
            await asyncio.gather(*(self.http.delete(f"/vms/{vm['id']}") for vm in left))
            return not left

        await eventually(are_gone, within_s=30, every_s=0.02)
