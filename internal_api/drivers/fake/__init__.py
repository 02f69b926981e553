"""Fakes of the three drivers that live in files: cheap, honest, and there after ``kill -9``."""

from internal_api.drivers.fake.faults import Faults
from internal_api.drivers.fake.hypervisor import FakeHypervisor
from internal_api.drivers.fake.network import FakeNetwork
from internal_api.drivers.fake.storage import FakeStorage

__all__ = ["FakeHypervisor", "FakeNetwork", "FakeStorage", "Faults"]
