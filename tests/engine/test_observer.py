"""What a node makes of guests that are not as its rows say: after its own start, and during long operations."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import pytest
from fake_bench import FakeBench, MakeBench, hypervisor_of
from support.polling import eventually

from internal_api import change
from internal_api.drivers.protocols import DomainEventKind, DomainState
from terrace.engine.testing import ALWAYS, Point
from terrace.store import vms

_AT_THE_POOL = {"image_capture": "copy", "volume_attach": "device", "snapshot_create": "disks"}


@pytest.fixture
def make_bench(make_bench: MakeBench) -> MakeBench:
    """A bench whose node looks at everything many times a second."""
    return partial(make_bench, full_pass_s=0.05, retry_backoff_s=0.005)


async def domain_of(bench: FakeBench) -> UUID:
    found = await bench.conn.fetchval("select uuid from vms")
    assert isinstance(found, UUID)
    return found


async def some_passes(bench: FakeBench) -> None:
    """Wait until the node has looked at everything several times."""
    calls = hypervisor_of(bench).faults.calls
    calls.clear()

    async def looked() -> bool:
        return calls.count("list_states") >= 6

    await eventually(looked, every_s=0.01)


async def row_is(bench: FakeBench, status: str, desired: str) -> None:
    async def look() -> bool:
        return tuple(await bench.conn.fetchrow("select status, desired from vms")) == (status, desired)

    await eventually(look, every_s=0.01)


async def own_starts(bench: FakeBench) -> list[str]:
    rows = await bench.conn.fetch("select state from operations where request_id = 'node-start' order by id")
    return [str(row[0]) for row in rows]


async def wait_for_the_pool(bench: FakeBench) -> None:
    """Begin the bench's operation, which waits at its step for a pool that does not answer."""
    bench.faults.plan(Point(_AT_THE_POOL[bench.kind], "do", "before"), "outage", ALWAYS)
    await bench.begin(bench.kind)
    await struck_again(bench)


async def struck_again(bench: FakeBench) -> None:
    before = len(bench.faults.struck)

    async def look() -> bool:
        return len(bench.faults.struck) > before

    await eventually(look, every_s=0.01)


async def reboot_host(bench: FakeBench) -> None:
    """The node comes up again, and its guests have lost their power."""
    hypervisor, domain = hypervisor_of(bench), await domain_of(bench)
    await bench.close()
    hypervisor.happen(domain, DomainState.STOPPED, DomainEventKind.DESTROYED)
    await bench.open()


async def test_a_vm_is_started_after_what_was_in_its_way(make_bench: MakeBench) -> None:
    bench = await make_bench("volume_attach")
    await wait_for_the_pool(bench)
    await reboot_host(bench)
    await struck_again(bench)
    await some_passes(bench)
    assert await own_starts(bench) == []
    await row_is(bench, "stopped", "running")
    bench.faults.planned.clear()
    assert (await bench.ended("volume_attach")).state == "succeeded"
    await row_is(bench, "running", "running")
    assert await hypervisor_of(bench).find_state(await domain_of(bench)) is DomainState.RUNNING
    await some_passes(bench)
    assert await own_starts(bench) == ["succeeded"]


async def test_a_start_that_failed_is_repeated(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_start")
    await bench.do("vm_start")
    bench.faults.plan(Point("domain", "do", "before"), "permanent", 2)
    await reboot_host(bench)

    async def settled() -> bool:
        return await own_starts(bench) == ["failed", "failed", "succeeded"]

    await eventually(settled)
    hypervisor_of(bench).happen(await domain_of(bench), DomainState.CRASHED, DomainEventKind.CRASHED)
    await row_is(bench, "crashed", "running")
    await some_passes(bench)
    assert len(await own_starts(bench)) == 3, "a guest that crashes later is not the node's to start"


async def test_a_vm_that_is_wanted_no_longer_is_left_alone(make_bench: MakeBench) -> None:
    bench = await make_bench("volume_attach")
    await wait_for_the_pool(bench)
    await reboot_host(bench)
    await some_passes(bench)
    await bench.conn.execute("update vms set desired = 'stopped'")
    bench.faults.planned.clear()
    await bench.ended("volume_attach")
    await some_passes(bench)
    assert await own_starts(bench) == []
    await row_is(bench, "stopped", "stopped")


async def test_a_vm_that_was_given_up_is_not_started(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_reset")
    await bench.conn.execute("update vms set status = 'error'")
    await reboot_host(bench)
    await some_passes(bench)
    [vm] = await vms.list_of_node(bench.conn, "hv1")
    assert (vm.status, vm.desired) == ("error", "running")
    assert await change.begin_own_start(bench.node.host, vm) is None
    assert await own_starts(bench) == []


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("kind", sorted(_AT_THE_POOL))
async def test_a_guest_goes_off_during_a_long_operation(make_bench: MakeBench, kind: str, taken_over: bool) -> None:
    bench = await make_bench(kind)
    await wait_for_the_pool(bench)
    if taken_over:
        await bench.close()
        await bench.open()
        await struck_again(bench)
    hypervisor_of(bench).happen(await domain_of(bench), DomainState.STOPPED, DomainEventKind.STOPPED)
    await row_is(bench, "stopped", "stopped")
    assert (await bench.newest())[0].state == "running"
    bench.faults.planned.clear()
    assert (await bench.ended(kind)).state == "succeeded"
    await bench.close()
    await bench.open()
    await some_passes(bench)
    await row_is(bench, "stopped", "stopped")
    assert await own_starts(bench) == []


async def test_a_restore_says_itself_what_its_vm_is(make_bench: MakeBench) -> None:
    bench = await make_bench("snapshot_restore")
    bench.faults.plan(Point("disks", "do", "before"), "outage", ALWAYS)
    await bench.begin("snapshot_restore")
    await struck_again(bench)
    domain = await domain_of(bench)
    hypervisor_of(bench).happen(domain, DomainState.CRASHED, DomainEventKind.CRASHED)
    await some_passes(bench)
    await row_is(bench, "stopped", "running")
    bench.faults.planned.clear()
    assert (await bench.ended("snapshot_restore")).state == "succeeded"
    await row_is(bench, "running", "running")
