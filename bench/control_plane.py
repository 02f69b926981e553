"""Creates, reads and memory of a control plane whose hypervisors only pretend (libvirt's test driver)."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field

from bench import processes, vms
from bench.report import Aim, Row, Section
from bench.stack import Stack
from bench.vms import Cost

_FEW = 100
_SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    creates: dict[int, int]  # by number of clients
    reads: dict[int, int]
    many: int  # VMs that count as many


FULL = Size(rounds=3, creates={1: 100, 8: 300, 32: 480}, reads={1: 500, 8: 2000}, many=10_000)
QUICK = Size(rounds=1, creates={1: 30, 8: 120, 32: 240}, reads={1: 200, 8: 600}, many=1_000)


@dataclass(slots=True)
class ControlPlane:
    """One measured stack, and the VMs that it holds between measures."""

    stack: Stack
    size: Size
    ids: list[int] = field(default_factory=list)

    async def fill(self, number: int) -> Cost | None:
        """Create VMs until there are ``number``."""
        missing = number - len(self.ids)
        if missing <= 0:
            return None
        cost, made = await vms.create(self.stack, missing, clients=16, most_s=1200.0)
        self.ids += made
        return cost

    async def memory(self) -> list[Section]:
        """Resident memory while nothing happens."""
        await asyncio.sleep(_SETTLE_S)
        by_member = processes.memory_mib(self.stack.roots())
        without = sum(mib for name, mib in by_member.items() if name != "postgres")
        rows = [
            Row("all processes but PostgreSQL's", without, "MiB", Aim(high=500)),
            Row("with PostgreSQL", sum(by_member.values()), "MiB"),
            *(Row(f"of that {name}", mib, "MiB") for name, mib in sorted(by_member.items())),
        ]
        return [Section("Memory of the idle control plane", "Proportional set size, summed over all processes.", rows)]

    async def creates(self) -> list[Section]:
        """Creates by one client and by many; what was made is deleted again after each round."""
        await self.fill(_FEW)
        made: dict[int, list[Cost]] = {clients: [] for clients in self.size.creates}
        deleted: list[Cost] = []
        for _ in range(self.size.rounds):
            for clients, number in self.size.creates.items():
                cost, ids = await vms.create(self.stack, number, clients=clients)
                made[clients].append(cost)
                deleted.append(await vms.delete(self.stack, ids, clients=8))
        rows = []
        for clients, costs in made.items():
            few = clients == 8
            rows += _rows(
                f"create, {clients} clients", costs, Aim(low=120) if few else None, None, Aim(high=10) if few else None
            )
        at_8, at_32 = (statistics.median(cost.load.rate for cost in made[clients]) for clients in (8, 32))
        rows.append(Row("create: rate at 32 clients in rates at 8", at_32 / at_8, "×", Aim(low=0.8)))
        rows += _rows("delete, 8 clients", deleted, None, None, None)
        how = (
            f"{_FEW} VMs in the project; each request waits until its VM has started, or is gone. "
            f"Medians of {self.size.rounds} rounds; CPU is that of all processes of the stack, the client's apart."
        )
        return [Section("Creates and deletes", how, rows), _by_member("One create by 8 clients", made[8])]

    async def reads(self) -> list[Section]:
        """Lists and single reads."""
        await self.fill(_FEW)
        return [Section("Reads", f"{len(self.ids)} VMs in the project.", (await self._reads()))]

    async def scale(self) -> list[Section]:
        """What the same costs with a hundred times as many VMs."""
        await self.fill(_FEW)
        few = await self._costs()
        filled = await self.fill(self.size.many)
        many = await self._costs()
        rows = [Row(f"filling up to {self.size.many} VMs, 16 clients", filled.load.rate, "/s")] if filled else []
        for name in few:
            rows.append(Row(f"{name}: CPU with {_FEW} VMs", few[name].cpu_ms_each, "ms"))
            rows.append(Row(f"{name}: CPU with {self.size.many} VMs", many[name].cpu_ms_each, "ms"))
            rows.append(
                Row(f"{name}: CPU, many in few", many[name].cpu_ms_each / few[name].cpu_ms_each, "×", Aim(high=1.25))
            )
        how = f"8 clients, {_FEW} VMs in the project and then {self.size.many}."
        reads = Section(f"Reads with {self.size.many} VMs", f"{len(self.ids)} VMs in the project.", await self._reads())
        return [Section("More VMs", how, rows), reads]

    async def _costs(self) -> dict[str, Cost]:
        """What each kind of request costs with the VMs that there are now."""
        created, ids = await vms.create(self.stack, self.size.creates[8], clients=8)
        return {
            "create": created,
            "delete": await vms.delete(self.stack, ids, clients=8),
            "list of 100": await vms.list_page(self.stack, self.size.reads[8], clients=8),
            "get": await vms.get(self.stack, self.ids, self.size.reads[8], clients=8),
        }

    async def _reads(self) -> list[Row]:
        rows = []
        for clients, number in self.size.reads.items():
            one = clients == 1
            lists = [await vms.list_page(self.stack, number, clients=clients) for _ in range(self.size.rounds)]
            rows += _rows(
                f"list of 100, {clients} clients",
                lists,
                None if one else Aim(low=700),
                Aim(high=4) if one else None,
                None,
            )
        for clients, number in self.size.reads.items():
            aim = Aim(high=2) if clients == 1 else None
            gets = [await vms.get(self.stack, self.ids, number, clients=clients) for _ in range(self.size.rounds)]
            rows += _rows(f"get, {clients} clients", gets, None, aim, None)
        return rows


def _rows(what: str, costs: list[Cost], rate: Aim | None, p50: Aim | None, cpu: Aim | None) -> list[Row]:
    what = what.replace(" 1 clients", " 1 client")
    return [
        Row(f"{what}: rate", statistics.median(cost.load.rate for cost in costs), "/s", rate),
        Row(f"{what}: p50", statistics.median(cost.load.quantile_ms(0.5) for cost in costs), "ms", p50),
        Row(f"{what}: p99", statistics.median(cost.load.quantile_ms(0.99) for cost in costs), "ms"),
        Row(f"{what}: CPU", statistics.median(cost.cpu_ms_each for cost in costs), "ms", cpu),
        Row(
            f"{what}: the client's CPU",
            statistics.median(1e3 * cost.load.client_cpu_s / cost.load.count for cost in costs),
            "ms",
        ),
    ]


def _by_member(title: str, costs: list[Cost]) -> Section:
    mean = {name: statistics.mean(cost.cpu_ms[name] for cost in costs) for name in costs[0].cpu_ms}
    rows = [Row(f"CPU of {name}", ms, "ms") for name, ms in sorted(mean.items(), key=lambda item: -item[1])]
    return Section(title, "Where the CPU time goes; mean of all rounds.", rows)
