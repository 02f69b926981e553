"""Getting an image's bytes into this node's pool: from a node that has them, or from a URL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from terrace import log, tier_auth
from terrace.db import Conn, in_transaction
from terrace.errors import Permanent, Transient
from terrace.store import image_removals, images
from terrace.types import Identity, ImageId, ProjectId, TokenId

if TYPE_CHECKING:
    from internal_api.host import Host

_log = log.get(__name__)
_CHUNK = 1 << 20


async def ensure_here(host: Host, sha256: str, image_format: str) -> None:
    """Make sure that this node's pool has the image; Transient when no node could give it."""
    # a removal that has the lock was decided before somebody wanted the image
    if not host.image_locks[sha256].locked() and await host.storage.has_image(sha256):
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


@asynccontextmanager
async def stored(host: Host, sha256: str) -> AsyncIterator[Callable[[Conn], Awaitable[None]]]:
    """Bytes that have just been put into this node's pool, until an image is recorded that wants them.

    The transaction that records it is to call what this yields last: Transient when somebody began to remove
    the bytes meanwhile. Raises the same when they are gone already.
    """
    async with host.image_locks[sha256]:
        async with host.pool.acquire() as conn:
            # housekeeping knows of them from now on, whatever happens next
            await images.add_location(conn, sha256, host.node)
            last = await image_removals.find_last(conn, host.pool_id, sha256)
        if not await host.storage.has_image(sha256):
            raise image_removals.being_removed()

        async def confirm(conn: Conn) -> None:
            await image_removals.refuse_if_begun(conn, host.pool_id, sha256, last)

        yield confirm


async def remove_unwanted(host: Host, sha256: str, *, but: ImageId | None = None) -> int:
    """Remove bytes from this node's pool, unless an image (``but`` that one) has them: two may have the same.

    Bytes that volumes are cloned from stay for now; says how many these are. Housekeeping tries again.
    """
    async with host.image_locks[sha256]:
        began = await in_transaction(
            host.pool, lambda conn: image_removals.begin(conn, host.pool_id, sha256, host.node, but=but)
        )
        if began is None:
            return 0
        # what fails otherwise may still come true, so that nobody may rely on the bytes before it is done again
        clones = await _remove(host, sha256)
        await in_transaction(
            host.pool, lambda conn: image_removals.end(conn, host.pool_id, sha256, began, removed=not clones)
        )
    return clones


async def _remove(host: Host, sha256: str) -> int:
    try:
        await host.storage.remove_image(sha256)
    except Permanent as exc:
        if exc.code != "image_in_use":
            raise
        _log.info("image_bytes_in_use", sha256=sha256, **exc.extra)
        return int(exc.extra["volumes"])
    return 0


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
