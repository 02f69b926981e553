"""What a node asks of its drivers: three protocols and the dataclasses that cross them.

Every ``ensure_*`` may run twice with the same arguments; every ``remove_*`` treats absence as
success. Drivers raise :class:`terrace.errors.Transient` (worth a retry) or
:class:`terrace.errors.Permanent` and nothing of the library beneath them.
"""

from internal_api.drivers.protocols.domain import (
    DiskSource,
    DomainDisk,
    DomainEvent,
    DomainEventKind,
    DomainSpec,
    DomainState,
    NicSpec,
    SharedPool,
)
from internal_api.drivers.protocols.hypervisor import Hypervisor
from internal_api.drivers.protocols.network import Lease, Network
from internal_api.drivers.protocols.storage import ImageFacts, PoolUsage, Storage, StorageCapabilities

__all__ = [
    "DiskSource",
    "DomainDisk",
    "DomainEvent",
    "DomainEventKind",
    "DomainSpec",
    "DomainState",
    "Hypervisor",
    "ImageFacts",
    "Lease",
    "Network",
    "NicSpec",
    "PoolUsage",
    "SharedPool",
    "Storage",
    "StorageCapabilities",
]
