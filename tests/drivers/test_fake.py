"""What the fakes add: a world that outlives its process, and faults."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import Collected

from internal_api.drivers.fake import FakeHypervisor, FakeNetwork, Faults
from internal_api.drivers.protocols import DomainEventKind, DomainSpec, DomainState, Lease, NicSpec
from terrace.errors import Permanent, Transient


async def test_the_world_survives_its_process(tmp_path: Path, spec: DomainSpec) -> None:
    first = FakeHypervisor(tmp_path)
    await first.connect()
    await first.ensure_defined(spec)
    await first.ensure_started(spec.uuid)
    second = FakeHypervisor(tmp_path)
    await second.connect()
    assert await second.list_states() == {spec.uuid: DomainState.RUNNING}


async def test_faults_before_and_after(tmp_path: Path, spec: DomainSpec) -> None:
    faults = Faults(tmp_path / "faults", {"before-ensure_defined": "transient 2"})
    fake = FakeHypervisor(tmp_path, faults)
    await fake.connect()
    for _ in range(2):
        with pytest.raises(Transient):
            await fake.ensure_defined(spec)
    assert await fake.find_state(spec.uuid) is None
    await fake.ensure_defined(spec)
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "after-ensure_started").write_text("permanent\n")
    with pytest.raises(Permanent):
        await fake.ensure_started(spec.uuid)
    assert await fake.find_state(spec.uuid) is DomainState.RUNNING
    (tmp_path / "faults" / "before-remove").write_text("transient 1")
    with pytest.raises(Transient):
        await fake.remove(spec.uuid)
    await fake.remove(spec.uuid)
    assert list(faults.calls)[:2] == ["connect", "ensure_defined"]


def test_a_fault_can_kill(tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "after-ping").write_text("kill")
    program = """
import asyncio, sys
from pathlib import Path
from internal_api.drivers.fake import FakeHypervisor
asyncio.run(FakeHypervisor(Path(sys.argv[1])).ping())
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9


async def test_guests_that_obey_or_do_not(tmp_path: Path, spec: DomainSpec) -> None:
    fake = FakeHypervisor(tmp_path, has_agent=True, obeys_acpi=False)
    await fake.connect()
    events = Collected(fake.events())
    await fake.ensure_defined(spec)
    await fake.ensure_started(spec.uuid)
    await fake.shutdown_by_acpi(spec.uuid)
    assert await fake.find_state(spec.uuid) is DomainState.RUNNING
    assert await fake.shutdown_by_agent(spec.uuid)
    await events.wait_for(lambda event: event.kind is DomainEventKind.STOPPED)
    fake.happen(spec.uuid, DomainState.CRASHED, DomainEventKind.CRASHED)
    assert await fake.find_state(spec.uuid) is DomainState.CRASHED
    heard: list[int] = []
    fake.on_reconnect(lambda: heard.append(1))
    fake.reconnect()
    assert heard == [1]


async def test_network(tmp_path: Path) -> None:
    fake = FakeNetwork(tmp_path)
    await fake.connect()
    nic = NicSpec("52:54:00:00:00:01", "br0", "tt1")
    leases = Collected(fake.leases())
    for _ in range(2):
        await fake.ensure_filter(nic, None)
    assert list(await fake.list_filters()) == ["tt1"]
    fake.give_lease(nic.mac, "10.0.0.9")
    assert await leases.wait_for(lambda lease: True) == Lease(nic.mac, "10.0.0.9")
    assert await fake.find_neighbour(nic.mac, "br0") is None
    for _ in range(2):
        await fake.remove_filter(nic)
    assert list(await fake.list_filters()) == []
    await fake.close()
    await leases.wait_for_end()


async def test_costs_next_to_nothing(tmp_path: Path, spec: DomainSpec) -> None:
    fake = FakeHypervisor(tmp_path)
    await fake.connect()
    began = time.process_time()
    for _ in range(200):
        await fake.ensure_defined(spec)
        await fake.ensure_started(spec.uuid)
        await fake.remove(spec.uuid)
    per_call_ms = (time.process_time() - began) / 600 * 1000
    assert per_call_ms < 0.5, f"{per_call_ms:.3f} ms"  # about 0.05 ms on an idle machine
