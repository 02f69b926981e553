from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from internal_api.drivers.executor import BlockingExecutor
from terrace.errors import Transient


async def test_returns_and_raises_what_the_call_does() -> None:
    executor = BlockingExecutor()
    assert await executor.run(divmod, 7, 2, timeout_s=5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await executor.run(divmod, 7, 0, timeout_s=5)


async def test_a_call_that_takes_too_long_is_transient_and_keeps_its_key() -> None:
    executor = BlockingExecutor(code="storage_unavailable")
    release, ended = threading.Event(), []

    def slow() -> None:
        release.wait()
        ended.append("slow")

    with pytest.raises(Transient, match="storage_unavailable"):
        await executor.run(slow, timeout_s=0.05, key="vm")
    with pytest.raises(Transient):  # not run at all, as the first is still at it
        await executor.run(ended.append, "never", timeout_s=0.05, key="vm")
    await executor.run(ended.append, "other", timeout_s=5, key="another vm")
    later = asyncio.create_task(executor.run(ended.append, "later", timeout_s=5, key="vm"))
    await asyncio.sleep(0.05)
    release.set()
    await later
    assert ended == ["other", "slow", "later"]


async def test_calls_of_one_key_never_overlap() -> None:
    executor = BlockingExecutor(threads=8)
    inside, most = 0, 0

    def call() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1

    await asyncio.gather(*(executor.run(call, timeout_s=10, key="vm") for _ in range(50)))
    assert most == 1


async def test_threads_and_queue_are_bounded() -> None:
    executor = BlockingExecutor(threads=2, max_waiting=3)
    release = threading.Event()
    before = threading.active_count()
    calls = [asyncio.create_task(executor.run(release.wait, timeout_s=5)) for _ in range(2)]
    await asyncio.sleep(0.05)
    calls += [asyncio.create_task(executor.run(release.wait, timeout_s=5)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(Transient):
        await executor.run(release.wait, timeout_s=5, key="full")
    assert threading.active_count() - before == 2
    release.set()
    await asyncio.gather(*calls)
    assert await executor.run(int, "1", timeout_s=5, key="full") == 1


async def test_what_timed_out_while_waiting_never_runs() -> None:
    executor = BlockingExecutor(threads=1)
    release, ran = threading.Event(), []
    first = asyncio.create_task(executor.run(release.wait, timeout_s=5))
    await asyncio.sleep(0.02)
    with pytest.raises(Transient):
        await executor.run(ran.append, 1, timeout_s=0.05, key="vm")
    release.set()
    await first
    await executor.run(ran.append, 2, timeout_s=5, key="vm")
    assert ran == [2]


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from internal_api.drivers.executor import blocking
async def main():
    asyncio.create_task(blocking.run(threading.Event().wait, timeout_s=60))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
