"""Put volumes away that this cloud has made and that no record speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from terrace.db import Conn, in_transaction
from terrace.engine.step import Run, Step, Workflow
from terrace.errors import Transient
from terrace.store import operations, pool_drift
from terrace.store.operations import NewOperation, Operation
from terrace.types import Identity

if TYPE_CHECKING:
    from internal_api.host import Host

KIND: Final = "pool_clean"


@dataclass(frozen=True, slots=True)
class Orphans:
    """Names in this node's pool."""

    host: Host
    names: Sequence[str]


async def begin(host: Host, who: Identity | None, names: Sequence[str], *, request_id: str) -> Operation | None:
    """Begin to put these names away, unless any operation may be at work in the pool."""

    async def work(conn: Conn) -> Operation | None:
        if await pool_drift.count_live(conn, host.pool_id):
            return None
        return await operations.insert(
            conn,
            NewOperation(
                kind=KIND,
                project_id=who.project_id if who else None,
                node=host.node,
                steps=STEP_NAMES,
                origin=host.node,
                token_id=who.token_id if who else None,
                request_id=request_id,
                params={"names": list(names)},
            ),
        )

    return await in_transaction(host.pool, work)


async def _retire(work: Orphans, _: Run) -> Mapping[str, Any]:
    host, retired = work.host, []
    for name in work.names:
        async with host.pool.acquire() as conn:
            known = name in await pool_drift.list_expected(conn, host.pool_id)
            busy = await pool_drift.count_live(conn, host.pool_id)
        if busy:
            raise Transient("volume_busy", "Another operation is at work in the pool.")
        if not known and await host.storage.is_ours(name):
            await host.storage.retire(name)
            retired.append(name)
    return {"retired": retired}


async def _forget(conn: Conn, work: Orphans) -> None:
    await pool_drift.forget(conn, work.host.pool_id, work.names)


_STEPS: Final[tuple[Step[Orphans], ...]] = (Step("retire", do=_retire, record=_forget),)
STEP_NAMES: Final = [step.name for step in _STEPS]


def workflow(host: Host) -> Workflow[Orphans]:
    """The workflow on this node; it is retried until it succeeds."""

    async def load(op: Operation) -> Orphans:
        return Orphans(host, op.params["names"])

    return Workflow(KIND, load, _STEPS, no_return=0)
