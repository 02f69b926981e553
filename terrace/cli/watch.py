"""Waits for operations and guests, showing the steps as they finish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from terrace.cli.client import Api, path_of
from terrace.cli.failures import ExitCode, Failure
from terrace.cli.hints import hint_for
from terrace.cli.progress import progress_on
from terrace.cli.reply import Json, Reply

_LIVE = frozenset({"pending", "running", "undoing"})
_GUEST_MAY_ANSWER = frozenset({"creating", "starting", "running", "rebooting"})
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


def deadline_after(timeout_s: float) -> float:
    """A moment on the monotonic clock."""
    return time.monotonic() + timeout_s


def settled(api: Api, reply: Reply, path: Callable[[Json], str], deadline: float | None) -> Json:
    """What was changed, as it is when the operation has succeeded; ``deadline`` None: as it was answered.

    ``path`` tells from the answer where the thing is.
    """
    changed: Json = reply.body
    if deadline is None or not reply.operation:
        return changed
    follow(api, reply.operation, deadline, name_in(changed))
    seen: Json = api.get(path(changed))
    return seen


def name_in(thing: Json) -> str:
    """The name of what is changed, for its progress; empty when it has none."""
    return str(thing.get("name") or "")


def follow(api: Api, operation: str | int, deadline: float, name: str = "") -> Json:
    """The operation when it succeeded; raises Failure when it ended otherwise, or has not ended in time.

    ``name`` of what is changed stands in the progress; without it the VM's.
    """
    hint = f"The operation goes on: `terrace op wait {operation}` follows it."
    with _noting(hint), progress_on(sys.stderr, name) as progress:
        for seen in _looks(api, path_of("operations", operation), deadline):
            progress.show(seen)
            if seen.get("state") not in _LIVE:
                break
        else:
            raise Failure(ExitCode.TIMED_OUT, f"Operation {operation} has not ended in time.")
    if seen.get("state") != "succeeded":
        raise failure_of_operation(seen)
    return seen


def wait_ready(api: Api, vm: str, deadline: float) -> Json:
    """The VM when its guest has answered; raises Failure when it can't, or has not in time."""
    with _noting(f"`terrace vm show {vm}` shows its state."), progress_on(sys.stderr) as progress:
        for seen in _looks(api, path_of("vms", vm), deadline):
            if seen.get("ready_at") or seen.get("status") not in _GUEST_MAY_ANSWER:
                break
            progress.waiting(f"{vm}: waiting for the guest to answer")
        else:
            raise Failure(ExitCode.TIMED_OUT, f"The guest of {vm} has not answered in time.")
    if seen.get("status") not in _GUEST_MAY_ANSWER:
        raise Failure(
            ExitCode.FAILED,
            f"VM {vm} is {seen.get('status')}, so its guest does not answer.",
            hint=f"`terrace vm start {vm}` starts a stopped VM; `terrace vm show {vm}` tells of an error.",
        )
    return seen


def failure_of_operation(operation: Json) -> Failure:
    """An operation that ended without success, as a Failure."""
    number, state = operation.get("id"), str(operation.get("state"))
    vm = str(operation.get("vm_name") or operation.get("vm") or "")
    error = operation.get("error") or {}
    code = str(error.get("code", ""))
    volume = operation.get("volume")
    facts = [("operation", f"{number} ({operation.get('kind')}{f' of {vm}' if vm else ''}) {state}")]
    if code:
        facts.append(("code", code))
    if operation.get("request_id"):
        facts.append(("request id", str(operation["request_id"])))
    match state:
        case "superseded":
            message = "Another operation took the place of this one."
            hint = f"`terrace op list --vm {vm}` shows which."
        case "stuck":
            message = str(error.get("detail") or "It could neither be finished nor undone.")
            hint = f"`terrace op show {number}` tells where it stuck{_way_out(operation, vm)}."
        case _:
            message = str(error.get("detail") or "The operation failed.")
            path = f"/volumes/{volume}" if volume else f"/vms/{vm}"
            hint = hint_for(code, 0, path) or f"`terrace op show {number}` shows its steps."
    return Failure(ExitCode.FAILED, message, facts=facts, hint=hint)


def _way_out(operation: Json, vm: str) -> str:
    """What can still be done with a thing whose operation is stuck."""
    volume = operation.get("volume")
    if volume:
        return f"; `terrace volume show {volume}` what has become of it"
    return f"; `terrace vm delete {vm}` is allowed" if str(operation.get("kind")).startswith("vm_") else ""


def _looks(api: Api, path: str, deadline: float) -> Iterator[Json]:
    """What is at ``path``, again and again, often at first; ends with a last look at the deadline."""
    pause_s = _FIRST_PAUSE_S
    while True:
        left_s = deadline - time.monotonic()
        yield api.get(path)
        if left_s <= 0:
            return
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)


@contextmanager
def _noting(hint: str) -> Iterator[None]:
    """Adds what becomes of the thing waited for, when the waiting ends before it."""
    try:
        yield
    except KeyboardInterrupt:
        raise Failure(ExitCode.INTERRUPTED, "Interrupted while waiting.", hint=hint) from None
    except Failure as failure:
        if failure.code not in (ExitCode.TIMED_OUT, ExitCode.INTERRUPTED, ExitCode.UNAVAILABLE):
            raise
        raise failure.noting(hint) from None
