"""What every hypervisor driver does: the file-backed fake, libvirt's test driver and real QEMU."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace

import pytest
from waiting import Collected

from internal_api.drivers.protocols import DomainEvent, DomainEventKind, DomainSpec, DomainState, Hypervisor
from terrace.errors import Permanent


def _is(spec: DomainSpec, kind: DomainEventKind) -> object:
    return lambda event: event == DomainEvent(spec.uuid, kind)


async def test_starts_once_and_tells(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.ping()
    assert await hypervisor.find_state(spec.uuid) is None
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_defined(spec)
    assert await hypervisor.find_state(spec.uuid) is DomainState.STOPPED
    assert await hypervisor.ensure_started(spec.uuid)
    assert not await hypervisor.ensure_started(spec.uuid)
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING
    assert (await hypervisor.list_states())[spec.uuid] is DomainState.RUNNING
    await events.wait_for(_is(spec, DomainEventKind.STARTED))


async def test_a_running_domain_may_be_defined_again(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    await hypervisor.ensure_defined(replace(spec, ram_mib=96))
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING


async def test_stops_once_and_tells(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.ensure_stopped(spec.uuid)
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_stopped(spec.uuid)
    await hypervisor.ensure_started(spec.uuid)
    await hypervisor.ensure_stopped(spec.uuid)
    await hypervisor.ensure_stopped(spec.uuid)
    assert await hypervisor.find_state(spec.uuid) is DomainState.STOPPED
    await events.wait_for(_is(spec, DomainEventKind.DESTROYED))
    assert await hypervisor.ensure_started(spec.uuid)


@pytest.mark.parametrize("running", [True, False])
async def test_removes_in_any_state(hypervisor: Hypervisor, spec: DomainSpec, running: bool) -> None:
    events = Collected(hypervisor.events())
    await hypervisor.remove(spec.uuid)
    await hypervisor.ensure_defined(spec)
    if running:
        await hypervisor.ensure_started(spec.uuid)
    await hypervisor.remove(spec.uuid)
    await hypervisor.remove(spec.uuid)
    assert await hypervisor.find_state(spec.uuid) is None
    assert spec.uuid not in await hypervisor.list_states()
    await events.wait_for(_is(spec, DomainEventKind.UNDEFINED))
    await hypervisor.ensure_defined(spec)
    assert await hypervisor.ensure_started(spec.uuid)


async def test_a_missing_domain_cannot_start(hypervisor: Hypervisor) -> None:
    with pytest.raises(Permanent):
        await hypervisor.ensure_started(uuid.uuid4())
    with pytest.raises(Permanent):
        await hypervisor.reset(uuid.uuid4())


async def test_without_agent_nothing_waits_for_one(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    await hypervisor.ensure_defined(spec)
    assert not await hypervisor.shutdown_by_agent(spec.uuid)
    await hypervisor.ensure_started(spec.uuid)
    began = time.monotonic()
    assert not await hypervisor.shutdown_by_agent(spec.uuid)
    assert not await hypervisor.shutdown_by_agent(spec.uuid, reboot=True)
    assert not await hypervisor.agent_answers(spec.uuid, 1.0)
    assert await hypervisor.agent_addresses(spec.uuid, 1.0) == {}
    assert not await hypervisor.agent_answers(uuid.uuid4(), 1.0)
    assert time.monotonic() - began < 5
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING


async def test_acpi_returns_at_once(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    await hypervisor.shutdown_by_acpi(spec.uuid)
    await hypervisor.ensure_defined(spec)
    await hypervisor.shutdown_by_acpi(spec.uuid)
    await hypervisor.ensure_started(spec.uuid)
    events = Collected(hypervisor.events())
    await hypervisor.shutdown_by_acpi(spec.uuid)
    if not hypervisor.boots_guests:  # a domain without a system does not hear the button
        await events.wait_for(_is(spec, DomainEventKind.STOPPED))
        assert await hypervisor.find_state(spec.uuid) is DomainState.STOPPED


async def test_reset_goes_on_running(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    await hypervisor.reset(spec.uuid)
    assert await hypervisor.find_state(spec.uuid) is DomainState.RUNNING


async def test_many_at_a_time(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    count = 4 if hypervisor.boots_guests else 50
    specs = [replace(spec, uuid=uuid.uuid4(), vm_id=spec.vm_id + number) for number in range(count)]

    async def live(one: DomainSpec) -> None:
        await hypervisor.ensure_defined(one)
        assert await hypervisor.ensure_started(one.uuid)

    await asyncio.gather(*map(live, specs))
    states = await hypervisor.list_states()
    assert all(states[one.uuid] is DomainState.RUNNING for one in specs)
    await asyncio.gather(*(hypervisor.remove(one.uuid) for one in specs))
    assert await hypervisor.list_states() == {}


async def test_listeners_hear_events_from_their_call_on_until_close(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    source = hypervisor.events()
    await hypervisor.ensure_defined(spec)
    await hypervisor.ensure_started(spec.uuid)
    events = Collected(source)
    await events.wait_for(_is(spec, DomainEventKind.STARTED))
    await hypervisor.remove(spec.uuid)
    await hypervisor.close()
    await events.wait_for_end()
    await hypervisor.connect()
