"""The worker of a node: takes its node's operations, carries them out, survives its own death.

One worker runs per node (a file lock keeps a second one out); each start raises the node's
incarnation, and every save names it, so that a worker that was thought dead can't write any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from terrace import log
from terrace.db import Conn, Pool, in_statement, in_transaction
from terrace.engine.step import Run, Step, Superseded, VmChange, Workflow
from terrace.errors import NotFound, Permanent, TerraceError, Transient
from terrace.problems import DATABASE_ERRORS
from terrace.store import operations, vms
from terrace.store.operations import Event, Operation
from terrace.types import OperationId, VmId

_log = log.get(__name__)
_LOOK_EVERY_S = 5.0
_BATCH = 64
_LONGEST_BACKOFF = 150  # times the first one
_REST_S = 1.0  # after a failure of the database
# A pool that does not answer is nobody's fault: what has begun goes on when it is back.
_OUTAGE = "storage_unavailable"
_OUTAGE_PATIENCE_S = 900.0  # what can still be undone is, after so long
_OUTAGE_BACKOFF = 20  # times the first one
_TELL_AFTER_S = 0.3  # a first step that is done by then needs no statement to say that it has begun

Probe = Callable[[Operation, str, str, str], Awaitable[None]]  # operation, step, "do"|"undo", "before"|"after"
Finished = Callable[[Operation], Awaitable[None]]
StepObserver = Callable[[str, str, bool, float], None]  # kind, step, ok, seconds


class Worker:
    """Carries out the operations of one node."""

    def __init__(
        self,
        pool: Pool,
        node: str,
        incarnation: int,
        workflows: Mapping[str, Workflow[Any]],
        *,
        on_finished: Finished,
        concurrency: int = 8,
        observe_step: StepObserver | None = None,
        probe: Probe | None = None,
        backoff_s: float = 0.2,
    ) -> None:
        self._pool = pool
        self._node = node
        self._incarnation = incarnation
        self._workflows = workflows
        self._on_finished = on_finished
        self._slots = asyncio.Semaphore(concurrency)
        self._observe_step = observe_step
        self._probe = probe
        self._backoff_s = backoff_s
        self._interrupts: dict[OperationId, asyncio.Event] = {}
        self._tasks: dict[OperationId, asyncio.Task[None]] = {}
        self._last_of_vm: dict[VmId, tuple[asyncio.Task[None], str]] = {}  # and its kind
        self._wake = asyncio.Event()
        self._has_more = False
        self._looper: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def busy(self) -> int:
        """How many operations are in hand."""
        return len(self._tasks)

    def settles_power(self, vm_id: VmId) -> bool:
        """Whether an operation is in hand that says itself whether this VM runs."""
        return vm_id in self._last_of_vm and vms.settles_power(self._last_of_vm[vm_id][1])

    def start(self) -> None:
        """Take over what is live, then look for more whenever woken, or every few seconds."""
        self._looper = asyncio.create_task(self._look(), name="worker")

    async def stop(self, patience_s: float) -> None:
        """Let steps in hand end for at most ``patience_s`` seconds; operations go on at the next start."""
        self._stopping = True
        ending = [*self._tasks.values()]
        if self._looper is not None:
            self._looper.cancel()
            ending.append(self._looper)
        for interrupted in self._interrupts.values():
            interrupted.set()
        if ending:
            await asyncio.wait(ending, timeout=patience_s)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def wake(self) -> None:
        """Look for operations now."""
        self._wake.set()

    def submit(self, op: Operation) -> None:
        """Carry out an operation that this process has just inserted and committed."""
        # a copy: the caller goes on showing what is committed, and the worker runs ahead of that
        self._begin(op.id, op.vm_id, op.kind, replace(op, result=dict(op.result)))

    def interrupt(self, op_id: OperationId) -> None:
        """Tell a run that its operation was superseded."""
        if op_id in self._interrupts:
            self._interrupts[op_id].set()

    def _begin(self, op_id: OperationId, vm_id: VmId | None, kind: str, op: Operation | None) -> None:
        if op_id in self._tasks or self._stopping:
            return
        previous, _ = self._last_of_vm.get(vm_id, (None, "")) if vm_id is not None else (None, "")
        interrupted = self._interrupts[op_id] = asyncio.Event()
        task = asyncio.create_task(self._carry_out(op_id, op, previous, interrupted), name=f"operation-{op_id}")
        self._tasks[op_id] = task
        if vm_id is not None:
            self._last_of_vm[vm_id] = (task, kind)
        task.add_done_callback(lambda ended: self._forget(op_id, vm_id, ended))

    def _forget(self, op_id: OperationId, vm_id: VmId | None, task: asyncio.Task[None]) -> None:
        del self._tasks[op_id], self._interrupts[op_id]
        if vm_id is not None and vm_id in self._last_of_vm and self._last_of_vm[vm_id][0] is task:
            del self._last_of_vm[vm_id]
        if not task.cancelled() and task.exception() is not None:
            _log.error("worker_task_died", op=op_id, exc_info=task.exception())
        if self._has_more and len(self._tasks) < _BATCH // 2:
            self.wake()

    async def _look(self) -> None:
        while True:
            self._wake.clear()
            try:
                async with self._pool.acquire() as conn:
                    if self._tasks:
                        for ended in await operations.list_ended(conn, list(self._tasks)):
                            self.interrupt(ended.id)
                    found = await operations.list_live(conn, self._node, self._incarnation, list(self._tasks), _BATCH)
                self._has_more = len(found) == _BATCH
                for op_id, vm_id, kind in found:
                    self._begin(op_id, vm_id, kind, None)
            except DATABASE_ERRORS as exc:
                _log.warning("worker_look_failed", error=repr(exc))
            try:
                await asyncio.wait_for(self._wake.wait(), _LOOK_EVERY_S)
            except TimeoutError:
                continue

    async def _carry_out(
        self,
        op_id: OperationId,
        op: Operation | None,
        previous: asyncio.Task[None] | None,
        interrupted: asyncio.Event,
    ) -> None:
        if previous is not None:
            await asyncio.wait([previous])  # two operations never touch one VM at the same time
        try:
            async with self._slots:
                if op is None or previous is not None:
                    op = await self._read(op_id)
                log.bind(op=op.id, kind=op.kind, request_id=op.request_id)
                run = Run(op, self._slots, interrupted)
                workflow = self._workflows[op.kind]
                subject = await self._load(workflow, op)
                await self._advance(workflow, subject, run)
        except Superseded:
            _log.info("operation_left")
            return
        except DATABASE_ERRORS as exc:
            # nothing is lost: the row says how far it came, and the next look takes it up from there
            _log.warning("operation_interrupted", error=repr(exc))
            await asyncio.sleep(_REST_S)
            self.wake()
            return
        _log.info("operation_finished", state=op.state, error=op.error)
        await self._on_finished(op)

    async def _read(self, op_id: OperationId) -> Operation:
        """The operation as it is now: it may have ended or moved since its id was read."""
        async with self._pool.acquire() as conn:
            op = await operations.find_live(conn, op_id, self._incarnation)
        if op is None:
            raise Superseded
        return op

    async def _load(self, workflow: Workflow[Any], op: Operation) -> Any:
        try:
            return await workflow.load(op)
        except NotFound as exc:
            _log.error("operation_without_target", error=str(exc))
            async with self._pool.acquire() as conn:
                await operations.fail(conn, op.id, self._incarnation, _public(exc))
            raise Superseded from exc

    async def _advance(self, workflow: Workflow[Any], subject: Any, run: Run) -> None:
        op = run.op
        delay = max(0.0, (op.run_after - datetime.now(UTC)).total_seconds())
        if delay:
            await run.sleep(min(delay, 60.0))
        telling = asyncio.create_task(self._tell_running(op.id)) if op.state == "pending" else None
        try:
            if telling is not None:
                op.state = "running"
            while op.state in ("running", "undoing"):
                run.leave_if_interrupted()
                move = self._do if op.state == "running" else self._undo
                await move(workflow, workflow.steps[op.cursor], subject, run)
        finally:
            if telling is not None:
                telling.cancel()

    async def _tell_running(self, op_id: OperationId) -> None:
        """Show an operation whose first step takes its time; the others' first save does."""
        began = datetime.now(UTC)
        await asyncio.sleep(_TELL_AFTER_S)
        with contextlib.suppress(*DATABASE_ERRORS):
            async with self._pool.acquire() as conn:
                await operations.mark_running(conn, op_id, self._incarnation, began)

    async def _do(self, workflow: Workflow[Any], step: Step[Any], subject: Any, run: Run) -> None:
        op = run.op
        began, started = datetime.now(UTC), time.perf_counter()
        error: TerraceError | None = None
        result: Mapping[str, Any] | None = None
        try:
            await self._probed(op, step, "do", "before")
            if step.do is not None:
                result = await step.do(subject, run)
            await self._probed(op, step, "do", "after")
        except Superseded:
            raise
        except Exception as exc:
            error = as_step_error(exc)
        seconds = time.perf_counter() - started
        if self._observe_step is not None:
            self._observe_step(op.kind, step.name, error is None, seconds)
        event = Event(step.name, "do", error is None, op.attempt + 1, began, seconds * 1e3, _public(error))
        if error is None:
            op.cursor += 1
            op.attempt = 0
            if op.cursor == len(workflow.steps):
                op.state = "succeeded"
            op.result.update(result or {})
            sets = step.sets(op) if callable(step.sets) else step.sets
            await self._save(run, event, step.record, subject, result=result, sets=sets)
        else:
            await self._step_failed(workflow, subject, run, event, error)

    async def _step_failed(
        self, workflow: Workflow[Any], subject: Any, run: Run, event: Event, error: TerraceError
    ) -> None:
        op = run.op
        outage = error.code == _OUTAGE
        op.attempt += not outage
        beyond = op.cursor >= workflow.no_return
        most = workflow.stubborn_attempts if beyond else workflow.attempts
        _log.warning("step_failed", step=event.step, attempt=op.attempt, error=str(error))
        again = (beyond or _age_s(op) < _OUTAGE_PATIENCE_S) if outage else op.attempt < most
        if isinstance(error, Transient) and again:
            await self._retry_later(run, event, outage=outage)
            return
        op.attempt = 0
        op.error = _public(error)
        if beyond:
            op.state = "stuck"
            await self._save(run, event, workflow.gave_up, subject, sets=workflow.stuck_vm)
        else:
            op.state = "undoing"
            await self._save(run, event, None, subject)

    async def _undo(self, workflow: Workflow[Any], step: Step[Any], subject: Any, run: Run) -> None:
        op = run.op
        began, started = datetime.now(UTC), time.perf_counter()
        error: TerraceError | None = None
        try:
            await self._probed(op, step, "undo", "before")
            if step.undo is not None:
                await step.undo(subject)
            await self._probed(op, step, "undo", "after")
        except Exception as exc:
            error = as_step_error(exc)
        event = Event(
            step.name,
            "undo",
            error is None,
            op.attempt + 1,
            began,
            (time.perf_counter() - started) * 1e3,
            _public(error),
        )
        if error is None:
            op.attempt = 0
            sets = None
            if op.cursor == 0:
                op.state = "failed"
                sets = workflow.failed_vm
            else:
                op.cursor -= 1
            await self._save(run, event, step.unrecord, subject, sets=sets)
            return
        outage = error.code == _OUTAGE
        op.attempt += not outage
        _log.warning("undo_failed", step=step.name, attempt=op.attempt, error=str(error))
        if outage or op.attempt < workflow.stubborn_attempts:
            await self._retry_later(run, event, outage=outage)
            return
        op.state = "stuck"
        await self._save(run, event, workflow.gave_up, subject, sets=workflow.stuck_vm)

    async def _retry_later(self, run: Run, event: Event, *, outage: bool) -> None:
        """An outage is not counted, and its end is looked for at short intervals."""
        delay = self._backoff_s * (_OUTAGE_BACKOFF if outage else min(2 ** (run.op.attempt - 1), _LONGEST_BACKOFF))
        await self._save(run, event, None, None, delay_s=delay)
        await run.sleep(delay)

    async def _save(
        self,
        run: Run,
        event: Event,
        record: Callable[[Any, Any], Awaitable[None]] | None,
        subject: Any,
        *,
        delay_s: float = 0.0,
        result: Mapping[str, Any] | None = None,
        sets: VmChange | None = None,
    ) -> None:
        async def save(conn: Conn) -> bool:
            saved = await operations.save(
                conn,
                run.op,
                self._incarnation,
                event,
                delay_s=delay_s,
                result=result,
                vm_status=sets.status if sets else None,
                vm_error=run.op.error if sets and run.op.state in ("failed", "stuck") else None,
                vm_started=sets.started if sets else False,
            )
            if saved and record is not None:
                await record(conn, subject)
            return saved

        if not await (in_statement if record is None else in_transaction)(self._pool, save):
            raise Superseded

    async def _probed(self, op: Operation, step: Step[Any], phase: str, moment: str) -> None:
        if self._probe is not None:
            await self._probe(op, step.name, phase, moment)


def as_step_error(exc: Exception) -> TerraceError:
    """What a step's exception means: domain errors as they are, anything else as our own bug."""
    if isinstance(exc, TerraceError):
        return exc
    if isinstance(exc, DATABASE_ERRORS):
        return Transient("database_unavailable", "The database did not answer.", internal=repr(exc))
    _log.error("step_crashed", exc_info=exc)
    return Permanent("internal_error", "A step failed in a way that we did not foresee.", internal=repr(exc))


def _age_s(op: Operation) -> float:
    return (datetime.now(UTC) - op.created_at).total_seconds()


def _public(error: TerraceError | None) -> dict[str, Any] | None:
    return {"code": error.code, "detail": error.detail} if error else None
