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

    async def create_on(self, node: str, **fields: Any) -> dict[str, Any]:
        """A small VM on that node; where others came to be is not undone."""
        for _ in range(20):
            vm = await self.create(**fields)
            if vm["node"] == node:
                return vm
        raise AssertionError(f"{node} gets no VMs")

    async def act(self, vm: dict[str, Any], action: str, **body: Any) -> httpx.Response:
        """The answer to an action on a VM."""
        return await self.http.post(f"/vms/{vm['id']}/actions/{action}", json=body or None)

    async def post_volume(self, name: str = "", size_gib: int = 1, **headers: str) -> httpx.Response:
        """The answer to a request for a volume; a header's name has underscores here."""
        body = {"name": name or new_name("volume"), "size_gib": size_gib}
        return await self.http.post("/volumes", json=body, headers=_headers(headers))

    async def create_volume(self, size_gib: int = 1) -> dict[str, Any]:
        """A volume that is not attached."""
        response = await self.post_volume(size_gib=size_gib)
        assert response.status_code == 201, response.text
        volume: dict[str, Any] = response.json()
        return volume

    async def attach(
        self, volume: dict[str, Any], vm: dict[str, Any], *, delete_with_vm: bool = False, **headers: str
    ) -> httpx.Response:
        """The answer to attaching a volume."""
        body = {"vm": str(vm["id"])} | ({"delete_with_vm": True} if delete_with_vm else {})
        return await self.http.post(f"/volumes/{volume['id']}/actions/attach", json=body, headers=_headers(headers))

    async def attached(self, vm: dict[str, Any], size_gib: int = 1, **options: Any) -> dict[str, Any]:
        """A new volume that is attached to a VM."""
        response = await self.attach(await self.create_volume(size_gib), vm, **options)
        assert response.status_code == 200, response.text
        volume: dict[str, Any] = response.json()
        return volume

    async def detach(self, volume: dict[str, Any], **headers: str) -> httpx.Response:
        """The answer to detaching a volume."""
        return await self.http.post(f"/volumes/{volume['id']}/actions/detach", headers=_headers(headers))

    async def resize(self, volume: dict[str, Any], size_gib: Any, **headers: str) -> httpx.Response:
        """The answer to resizing a volume."""
        body = {"size_gib": size_gib}
        return await self.http.post(f"/volumes/{volume['id']}/actions/resize", json=body, headers=_headers(headers))

    async def post_snapshot(self, vm: dict[str, Any], name: str = "", **headers: str) -> httpx.Response:
        """The answer to a request for a snapshot."""
        body = {"name": name or new_name("snapshot")}
        return await self.http.post(f"/vms/{vm['id']}/snapshots", json=body, headers=_headers(headers))

    async def snapshot(self, vm: dict[str, Any], name: str = "") -> dict[str, Any]:
        """A snapshot that has been taken."""
        response = await self.post_snapshot(vm, name)
        assert response.status_code == 201, response.text
        snapshot: dict[str, Any] = response.json()
        return snapshot

    async def restore(self, snapshot: dict[str, Any], *, force: bool = False) -> httpx.Response:
        """The answer to restoring a snapshot."""
        path = f"/vms/{snapshot['vm']}/snapshots/{snapshot['id']}/actions/restore"
        return await self.http.post(path, json={"force": True} if force else None)

    async def disk_claimed(self) -> dict[str, int]:
        """GiB that are claimed of each node's pool."""
        return {node["name"]: node["disk_claimed_gib"] for node in await self.get("/nodes")}

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
        """Leave no VM, snapshot or volume behind for the next test."""

        async def are_gone() -> bool:
            left = await self.all("/vms?limit=1000")
            await asyncio.gather(*(self.http.delete(f"/vms/{vm['id']}") for vm in left))
            if not left:
                left = await self.all("/volumes?limit=1000")
                await asyncio.gather(*(self.http.delete(f"/volumes/{volume['id']}") for volume in left))
            return not left

        await eventually(are_gone, within_s=30, every_s=0.02)


def _headers(words: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in words.items()}
