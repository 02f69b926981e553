"""What the work on a node needs at hand: drivers, database, names. Made once, in ``main``."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from internal_api.drivers.protocols import DomainEvent, DomainEventKind, Hypervisor, Network, NicSpec, Storage
from internal_api.drivers.tap import tap_name
from internal_api.settings import InternalSettings
from terrace.db import Pool
from terrace.placement import Placement
from terrace.store.vms import Vm
from terrace.types import PoolId, VmId

if TYPE_CHECKING:
    from collections.abc import Iterator


class Signals:
    """Lets a step wait for an event of its domain."""

    def __init__(self) -> None:
        self._expected: dict[UUID, list[tuple[frozenset[DomainEventKind], asyncio.Event]]] = {}

    @contextmanager
    def expecting(self, domain: UUID, *kinds: DomainEventKind) -> Iterator[asyncio.Event]:
        """An asyncio event that is set when one of ``kinds`` happens to the domain from now on."""
        entry = (frozenset(kinds), asyncio.Event())
        self._expected.setdefault(domain, []).append(entry)
        try:
            yield entry[1]
        finally:
            entries = self._expected[domain]
            entries.remove(entry)
            if not entries:
                del self._expected[domain]

    def emit(self, event: DomainEvent) -> None:
        """Set what waits for this event."""
        for kinds, waiting in self._expected.get(event.domain, ()):
            if event.kind in kinds:
                waiting.set()


@dataclass(slots=True)
class Host:
    """One virtualization node, as its workflows and reconcilers see it."""

    settings: InternalSettings
    pool: Pool
    pool_id: PoolId
    incarnation: int
    hypervisor: Hypervisor
    storage: Storage
    network: Network
    placement: Placement
    http: httpx.AsyncClient
    tier_secret: bytes
    signals: Signals = field(default_factory=Signals)
    image_locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    vm_of_domain: dict[UUID, VmId] = field(default_factory=dict)
    claimed: dict[VmId, Vm] = field(default_factory=dict)  # just inserted here: their first load needs no query
    pool_known: bool = False  # whether the hypervisor knows how to reach the storage's pool
    going_down: bool = False

    @property
    def node(self) -> str:
        """The node's name."""
        return self.settings.node_name


def volume_name(vm: Vm) -> str:
    """Name of a VM's system disk in its pool."""
    return f"{vm.uuid}-root"


def data_volume_name(uuid: UUID) -> str:
    """Name of a data volume in its pool."""
    return f"{uuid}-data"


def snapshot_name(uuid: UUID) -> str:
    """Name of a snapshot, at each disk that it is of."""
    return f"s-{uuid}"


def seed_name(vm: Vm) -> str:
    """Name of a VM's NoCloud seed in its pool."""
    return f"{vm.uuid}-seed"


def nic_of(vm: Vm) -> NicSpec:
    """A VM's network card; the tap's name derives from the UUID, so that it is known beforehand."""
    return NicSpec(mac=vm.mac, bridge=vm.bridge, tap=tap_name(vm.uuid))
