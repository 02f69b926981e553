"""The one bounded thread executor through which the drivers call libraries that block.

Its threads are daemons, unlike those of ``concurrent.futures``, which the interpreter joins at exit: one
call that hangs in a library must not keep a stopping node alive.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, TypeVarTuple

from terrace.errors import Transient

T = TypeVar("T")
Args = TypeVarTuple("Args")


class BlockingExecutor:
    """``threads`` workers and at most ``max_waiting`` calls that wait for one of them.

    A thread cannot be stopped. When a call's time is up its caller gets Transient, but the thread works
    on, and calls that share its ``key`` (a domain, say) go on waiting until it has really ended: two calls
    of one key never run at the same time. A call whose time is up before it began never runs at all.
    """

    def __init__(self, threads: int = 16, max_waiting: int = 1024, *, code: str = "service_unavailable") -> None:
        self._code = code  # of the error when a call takes too long
        self._threads = threads
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(max_waiting)
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}

    async def run(self, fn: Callable[[*Args], T], *args: *Args, timeout_s: float, key: str | None = None) -> T:
        """``fn(*args)`` in a thread; raises Transient when the queue is full or ``timeout_s`` is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while key is not None and (ahead := self._running.get(key)) is not None:
                    await asyncio.wait([asyncio.wrap_future(ahead)])
                return await asyncio.wrap_future(self._submit(lambda: fn(*args), key))
        except TimeoutError:
            name = getattr(fn, "__name__", "call")
            raise Transient(
                self._code,
                "The node's hypervisor or storage did not answer in time.",
                internal=f"{name} took longer than {timeout_s:g} s",
            ) from None

    def _submit(self, call: Callable[[], T], key: str | None) -> Future[T]:
        result: Future[T] = Future()
        ended: Future[None] = Future()  # unlike ``result``, never cancelled: it tells when the thread is done

        def job() -> None:
            try:
                if result.set_running_or_notify_cancel():
                    try:
                        value = call()
                    except BaseException as error:
                        result.set_exception(error)
                    else:
                        result.set_result(value)
            finally:
                if key is not None:
                    self._running.pop(key, None)
                ended.set_result(None)

        if key is not None:
            self._running[key] = ended
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            if key is not None:
                del self._running[key]
            raise Transient(self._code, "The node is too busy.", internal="the drivers' queue is full") from None
        self._ensure_thread()
        return result

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._idle >= self._jobs.qsize() or self._started >= self._threads:
                return
            self._started += 1
            name = f"driver-{self._started}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            job()


blocking = BlockingExecutor()
