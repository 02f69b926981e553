"""Getting an image's bytes into this node's pool: from a node that has them, or from a URL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx

from terrace import log, tier_auth
from terrace.errors import Permanent, Transient
from terrace.store import images
from terrace.types import Identity, ProjectId, TokenId

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_CHUNK = 1 << 20


async def ensure_here(host: Host, sha256: str, image_format: str) -> None:
    """Make sure that this node's pool has the image; Transient when no node could give it."""
    if await host.storage.has_image(sha256):
        return
    async with host.image_locks[sha256]:
        if await host.storage.has_image(sha256):
            return
        async with host.pool.acquire() as conn:
            locations = await images.list_locations(conn, sha256)
        for node, url in locations:
            if node == host.node:
                continue
            try:
                await _fetch(host, f"{url}/internal/v1/images/{sha256}/content", sha256, image_format)
            except (httpx.HTTPError, Permanent, Transient) as exc:
                _log.warning("image_fetch_failed", node=node, sha256=sha256, error=str(exc))
                continue
            async with host.pool.acquire() as conn:
                await images.add_location(conn, sha256, host.node)
            return
    raise Transient("service_unavailable", "No node that has the image can be reached.")


async def remove_unwanted(host: Host, sha256: str) -> None:
    """Remove bytes from this node's pool, unless an image has them: two may have the same."""
    async with host.image_locks[sha256]:
        async with host.pool.acquire() as conn:
            wanted = await images.is_wanted(conn, sha256)
        if not wanted:
            await host.storage.remove_image(sha256)


async def _fetch(host: Host, url: str, sha256: str, image_format: str) -> None:
    target = httpx.URL(url)
    headers = tier_auth.sign(
        host.tier_secret,
        Identity(ProjectId(0), TokenId(0), "node"),
        now=time.time(),
        method="GET",
        target=target.raw_path.decode(),
        body_hash=tier_auth.hash_body(b""),
        key="",
    )
    async with host.http.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        await host.storage.import_image(
            response.aiter_bytes(_CHUNK),
            format=image_format,
            checksum=sha256,
            max_bytes=host.settings.max_image_bytes,
        )


async def download(host: Host, url: str) -> AsyncIterator[bytes]:
    """Chunks of what a public URL holds; Transient or Permanent ``image_download_failed``."""
    try:
        async with host.http.stream("GET", url, follow_redirects=True) as response:
            if response.status_code >= 500:
                raise Transient("image_download_failed", f"The image's server answered {response.status_code}.")
            if response.status_code != 200:
                raise Permanent("image_download_failed", f"The image's server answered {response.status_code}.")
            async for chunk in response.aiter_bytes(_CHUNK):
                yield chunk
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as exc:
        raise Permanent("image_download_failed", "The image's server redirects to no usable URL.") from exc
    except httpx.HTTPError as exc:
        raise Transient(
            "image_download_failed", "The image could not be downloaded from its URL.", internal=repr(exc)
        ) from exc
