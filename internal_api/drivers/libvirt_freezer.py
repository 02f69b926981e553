"""Freezing a guest's file systems, and never leaving them so."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from internal_api.drivers import libvirt_agent as agent
from internal_api.drivers.libvirt_calls import DomainCalls
from internal_api.drivers.libvirt_connection import CALL_TIMEOUT_S
from terrace.errors import Permanent, Transient

# How long a guest that did not hear us thaw it is told so again.
THAW_EVERY_S = 5.0
THAW_ATTEMPTS = 120
THAW_TIMEOUT_S = 5.0


class LibvirtFreezer:
    """The methods of :class:`internal_api.drivers.protocols.Hypervisor` of the same names."""

    def __init__(self, calls: DomainCalls) -> None:
        self._calls = calls
        self._thawing: dict[UUID, asyncio.Task[None]] = {}

    async def close(self) -> None:
        thawing = list(self._thawing.values())
        for task in thawing:
            task.cancel()
        if thawing:
            await asyncio.wait(thawing)

    async def freeze(self, domain: UUID, timeout_s: float) -> bool:
        if (thawing := self._thawing.pop(domain, None)) is not None:
            thawing.cancel()  # it would thaw what is to be frozen now

        def ask(handle: Any) -> bool | None:
            return agent.freeze(handle, timeout_s)

        frozen: bool | None = None
        try:
            frozen = await self._calls.on_existing(domain, ask, lane="agent", timeout_s=timeout_s + CALL_TIMEOUT_S)
        finally:
            if frozen is None:  # a guest that is slow may freeze later
                self._keep_thawing(domain)
        return bool(frozen)

    async def thaw(self, domain: UUID, timeout_s: float) -> None:
        thawed = False
        try:
            thawed = await self._thaw(domain, timeout_s)
        finally:
            if not thawed:
                self._keep_thawing(domain)

    async def _thaw(self, domain: UUID, timeout_s: float) -> bool:
        """True also when there is no guest any more."""

        def ask(handle: Any) -> bool:
            return agent.thaw(handle, timeout_s) or not handle.isActive()

        done = await self._calls.on_existing(domain, ask, lane="agent", timeout_s=timeout_s + CALL_TIMEOUT_S)
        return done is None or done

    def _keep_thawing(self, domain: UUID) -> None:
        if domain not in self._thawing:
            task = asyncio.create_task(self._thaw_in_the_end(domain), name=f"thaw {domain}")
            self._thawing[domain] = task
            task.add_done_callback(lambda done: self._forget(domain, done))

    def _forget(self, domain: UUID, task: asyncio.Task[None]) -> None:
        if self._thawing.get(domain) is task:
            del self._thawing[domain]

    async def _thaw_in_the_end(self, domain: UUID) -> None:
        for _ in range(THAW_ATTEMPTS):
            await asyncio.sleep(THAW_EVERY_S)
            try:
                if await self._thaw(domain, THAW_TIMEOUT_S):
                    return
            except (Transient, Permanent):
                continue  # the hypervisor is away, too
