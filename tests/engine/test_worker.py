"""What the worker promises beside the three generic tests: who may go on, in which order, after what."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_bench import FakeBench, MakeBench, hypervisor_of
from support.node_world import bare_host, settings, start_node
from support.polling import eventually
from support.postgres import Database, shared_cluster

from internal_api import change
from internal_api.drivers.fake import FakeHypervisor
from internal_api.host import Host
from terrace.api.vm import ActionBody
from terrace.engine.testing import Point
from terrace.errors import Conflict
from terrace.store import nodes, operations
from terrace.store.idempotency import Key
from terrace.types import VmId
from terrace.vm_state import Action


async def stop_that_waits(bench: FakeBench) -> FakeHypervisor:
    """A graceful stop of a guest that does not listen, asked already."""
    hypervisor = hypervisor_of(bench)
    hypervisor.obeys_acpi = False
    await bench.begin("vm_stop")
    await eventually(lambda: _called(hypervisor, "shutdown_by_acpi"), every_s=0.01)
    return hypervisor


async def _called(hypervisor: FakeHypervisor, method: str) -> bool:
    return method in hypervisor.faults.calls


async def act_from(host: Host, bench: FakeBench, action: Action, key: str = "elsewhere") -> operations.Operation:
    """Begin an action on the bench's VM at another node."""
    begun = await change.begin_action(
        host, bench.who, "vm1", action, ActionBody(), Key(bench.who.project_id, "TEST", key, b""), "request"
    )
    assert begun.operation is not None
    return begun.operation


async def test_an_older_incarnation_can_save_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_create")

    async def another_process_starts() -> None:
        await nodes.register(bench.conn, "hv1", "http://127.0.0.1:1", bench.node.host.settings.capacity(None))

    bench.faults.hooks["vm_create", Point("volume", "do", "after")] = another_process_starts
    await bench.begin("vm_create")
    await eventually(lambda: _idle(bench), every_s=0.01)
    op, events = await bench.newest()
    assert op.state == "running"
    assert [event.step for event in events] == ["claim", "image"]
    calls = len(hypervisor_of(bench).faults.calls)
    bench.node.worker.wake()
    await asyncio.sleep(0.1)
    assert "ensure_defined" not in list(hypervisor_of(bench).faults.calls)[calls:]
    bench.faults.hooks.clear()
    await bench.close()
    await bench.open()
    assert (await bench.ended("vm_create")).state == "succeeded"


async def _idle(bench: FakeBench) -> bool:
    return bench.node.worker.busy == 0 and (await bench.newest())[0].state == "running"


async def test_a_former_owner_can_save_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_start")

    async def another_owner() -> None:
        await bench.conn.execute("update vms set epoch = epoch + 1")

    bench.faults.hooks["vm_start", Point("network", "do", "after")] = another_owner
    await bench.begin("vm_start")
    await eventually(lambda: _idle(bench), every_s=0.01)
    assert [event.step for event in (await bench.newest())[1]] == ["seed"]
    bench.node.worker.wake()
    await asyncio.sleep(0.1)
    assert (await bench.newest())[0].state == "running"
    assert await bench.conn.fetchval("select status from vms") == "starting"


async def test_a_stop_that_waits_is_seen_to_run(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    await stop_that_waits(bench)

    async def runs() -> bool:
        return (await bench.newest())[0].state == "running"

    await eventually(runs)
    assert (await bench.newest())[0].started_at is not None


@pytest.mark.parametrize("drastic", ["vm_poweroff", "vm_delete"])
async def test_a_waiting_stop_gives_way(make_bench: MakeBench, drastic: str) -> None:
    bench = await make_bench("vm_stop")
    hypervisor = await stop_that_waits(bench)
    began = asyncio.get_running_loop().time()
    hypervisor.faults.calls.clear()
    assert (await bench.do(drastic)).state == "succeeded"
    assert asyncio.get_running_loop().time() - began < 3.0
    assert (await bench.newest())[0].state == "superseded"
    assert not [call for call in hypervisor.faults.calls if call.startswith("shutdown")]
    status = await bench.conn.fetchval("select status from vms")
    assert status == ("stopped" if drastic == "vm_poweroff" else None)


async def test_superseded_at_another_node_gives_way(make_bench: MakeBench, database: Database, tmp_path: Path) -> None:
    bench = await make_bench("vm_stop")
    await stop_that_waits(bench)
    op = await act_from(await bare_host(database, tmp_path, "hv2"), bench, Action.POWEROFF)
    assert (op.node, op.origin) == ("hv1", "hv2")
    began = asyncio.get_running_loop().time()
    assert (await bench.ended("vm_poweroff")).state == "succeeded"
    assert asyncio.get_running_loop().time() - began < 3.0, "the notification was not heard"


async def test_the_old_step_ends_before_the_new_one_begins(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    order: list[str] = []

    async def slow() -> None:
        order.append("stop begins")
        await asyncio.sleep(0.2)
        order.append("stop ends")

    async def quick() -> None:
        order.append("poweroff begins")

    bench.faults.hooks["vm_stop", Point("shutdown", "do", "before")] = slow
    bench.faults.hooks["vm_poweroff", Point("poweroff", "do", "before")] = quick
    await bench.begin("vm_stop")
    await eventually(lambda: asyncio.sleep(0, order))
    assert (await bench.do("vm_poweroff")).state == "succeeded"
    assert order == ["stop begins", "stop ends", "poweroff begins"]


async def test_stops_that_wait_hold_up_nobody(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop", worker_concurrency=1)
    await stop_that_waits(bench)
    bench.node.submit(await bench.claim("other"))
    assert (await bench.ended("vm_create")).state == "succeeded"
    assert (await bench.newest())[0].state in operations.LIVE


async def test_an_equal_action_joins_and_another_is_refused(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    await stop_that_waits(bench)
    first = (await bench.newest())[0]
    joined = await act_from(bench.node.host, bench, Action.STOP)
    assert joined.id == first.id
    for action in (Action.START, Action.REBOOT, Action.RESET):
        with pytest.raises(Conflict) as refused:
            await act_from(bench.node.host, bench, action, key=action)
        assert refused.value.code == "vm_busy"
    assert await bench.conn.fetchval("select count(*) from idempotency_keys where key = 'start'") == 0


async def test_one_live_operation_however_many_ask(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    hypervisor_of(bench).obeys_acpi = False
    begun = await asyncio.gather(
        *(act_from(bench.node.host, bench, Action.STOP, key=f"key-{number}") for number in range(20))
    )
    assert len({op.id for op in begun}) == 1


async def test_what_an_absent_node_has_missed_is_taken_up(
    make_bench: MakeBench, database: Database, tmp_path: Path
) -> None:
    bench = await make_bench("vm_poweroff")
    await bench.node.stop()
    op = await act_from(await bare_host(database, tmp_path, "hv2"), bench, Action.POWEROFF)
    assert op.state == "pending"
    bench._node = None
    await bench.close()
    await bench.open()
    assert (await bench.ended("vm_poweroff")).state == "succeeded"


async def test_more_operations_than_one_look_finds(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_create", cpu=200, ram_mib=20_000, disk_gib=400)
    await bench.conn.execute(
        "insert into addresses (subnet_id, ip) select 1, inet '10.2.0.0' + n from generate_series(1, 200) n"
    )
    for number in range(150):
        await bench.claim(f"vm{number}")
    bench.node.worker.wake()
    await eventually(lambda: _all_ended(bench), within_s=20.0)
    assert await bench.conn.fetchval("select count(*) from vms where status = 'running'") == 150


async def _all_ended(bench: FakeBench) -> bool:
    return not await bench.conn.fetchval(
        "select count(*) from operations where state in ('pending', 'running', 'undoing')"
    )


async def test_operations_of_one_vm_keep_their_order(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    running = running_most = 0

    async def enter() -> None:
        nonlocal running, running_most
        running += 1
        running_most = max(running_most, running)

    async def leave() -> None:
        nonlocal running
        running -= 1

    for kind, step in (("vm_stop", "shutdown"), ("vm_start", "start"), ("vm_reboot", "reboot")):
        bench.faults.hooks[kind, Point(step, "do", "before")] = enter
        bench.faults.hooks[kind, Point(step, "do", "after")] = leave
    for turn in range(5):
        for action in (Action.STOP, Action.START, Action.REBOOT):
            op = await act_from(bench.node.host, bench, action, key=f"{turn} {action}")
            bench.node.submit(op)
            await bench.ended(f"vm_{action}")
    assert running_most == 1


async def test_a_stopping_node_finishes_its_step(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_create")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    bench.faults.hooks["vm_create", Point("seed", "do", "before")] = hold
    await bench.begin("vm_create")
    await reached.wait()
    stopping = asyncio.create_task(bench.node.stop())
    await asyncio.sleep(0.05)
    go_on.set()
    await stopping
    bench._node = None
    op, events = await bench.newest()
    assert [event.step for event in events] == ["claim", "image", "volume", "seed"]
    assert op.state == "running"
    bench.faults.hooks.clear()
    await bench.close()
    await bench.open()
    assert (await bench.ended("vm_create")).state == "succeeded"


async def test_a_stopping_node_does_not_wait_for_guests(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_stop")
    await stop_that_waits(bench)
    began = asyncio.get_running_loop().time()
    await bench.close()
    assert asyncio.get_running_loop().time() - began < 3.0
    await bench.open()  # and guests obey again
    assert (await bench.ended("vm_stop")).state == "succeeded"


@pytest.mark.parametrize("how", ["connections", "server"])
async def test_a_restart_of_the_database_loses_nothing(make_bench: MakeBench, database: Database, how: str) -> None:
    bench = await make_bench("vm_create", worker_concurrency=4)
    claimed = [await bench.claim(f"vm{number}") for number in range(8)]
    halfway = asyncio.Event()

    async def pause() -> None:
        halfway.set()
        await asyncio.sleep(0.01)

    bench.faults.hooks["vm_create", Point("domain", "do", "before")] = pause
    for op in claimed:
        bench.node.submit(op)
    await halfway.wait()
    if how == "server":
        shared_cluster().restart()  # in this thread: the server ends with the one that started it
        bench.conn.terminate()
        bench._conn = await database.connect()
    else:
        assert await database.terminate_backends("worker-%") > 0
    await eventually(lambda: _all_ended(bench), within_s=20.0)
    assert await bench.conn.fetchval("select count(*) from vms where status = 'running'") == 8
    assert await bench.conn.fetchval("select cpu_claimed from nodes") == 8


@pytest.mark.parametrize("phase", ["do", "undo"])
async def test_an_outage_of_the_pool_outlasts_no_operation(make_bench: MakeBench, phase: str) -> None:
    bench = await make_bench("vm_create")
    if phase == "undo":
        bench.faults.plan(Point("start", "do", "before"), "permanent")
    bench.faults.plan(Point("volume", phase, "before"), "outage", 70)
    op = await bench.run()
    assert op.state == ("succeeded" if phase == "do" else "failed")
    _, events = await bench.newest()
    assert [event.ok for event in events if (event.step, event.phase) == ("volume", phase)] == [False] * 70 + [True]


async def test_an_ended_operation_is_not_carried_out_again(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_poweroff")
    stale = await act_from(bench.node.host, bench, Action.POWEROFF)
    bench.node.submit(stale)
    assert (await bench.ended("vm_poweroff")).state == "succeeded"
    assert stale.state == "pending", "the caller's own copy must not run ahead of what is saved"
    await bench.do("vm_start")
    bench.node.submit(stale, inserted=False)
    await asyncio.sleep(0.1)
    assert await bench.conn.fetchval("select status from vms") == "running"
    states = await hypervisor_of(bench).list_states()
    assert [str(state) for state in states.values()] == ["running"]


async def test_one_process_runs_a_node(make_bench: MakeBench, database: Database, tmp_path: Path) -> None:
    bench = await make_bench("vm_create")
    with pytest.raises(SystemExit, match="runs already"):
        await start_node(settings(database, tmp_path, "hv1"))
    assert await bench.conn.fetchval("select incarnation from nodes") == 1


async def test_a_key_whose_action_was_true_already_is_remembered(make_bench: MakeBench) -> None:
    bench = await make_bench("vm_poweroff")
    key = Key(bench.who.project_id, "TEST start", "key", b"")
    for _ in range(2):
        begun = await change.begin_action(bench.node.host, bench.who, "vm1", Action.START, ActionBody(), key, "request")
        assert (begun.vm_id, begun.operation) == (VmId(1), None)
