"""VMs by the thousand: made, listed, read and deleted through the public API."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from bench import load, processes
from bench.load import Load
from bench.stack import Stack

DISK_GIB = 1
_VM = {"ram_mib": 64, "disk_gib": DISK_GIB}
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cost:
    """A load and the CPU time, in ms for each request, that each member spent on it."""

    load: Load
    cpu_ms: dict[str, float]

    @property
    def cpu_ms_each(self) -> float:
        """CPU milliseconds for each request over all processes of the stack."""
        return sum(self.cpu_ms.values())


async def measured(
    stack: Stack, requests: Iterator[bytes], clients: int, most_s: float, found: list[bytes] | None = None
) -> Cost:
    """The answers' bodies go to ``found``."""
    roots = stack.roots()
    before = processes.cpu_seconds(roots)
    made = await load.run(
        stack.endpoint, requests, clients=clients, most_s=most_s, on_body=None if found is None else found.append
    )
    after = processes.cpu_seconds(roots)
    return Cost(made, {name: 1e3 * (after[name] - before[name]) / made.count for name in after})


async def create(stack: Stack, number: int, *, clients: int, most_s: float = 120.0) -> tuple[Cost, list[int]]:
    """Create VMs, each awaited until it has started; returns their ids too."""
    bodies = (json.dumps({"name": f"bench-{next(_names)}", **_VM}).encode() for _ in range(number))
    requests = (stack.endpoint.request("POST", "/api/v1/vms", body) for body in bodies)
    answers: list[bytes] = []
    cost = await measured(stack, requests, clients, most_s, answers)
    cost.load.expect(201)
    return cost, [json.loads(answer)["id"] for answer in answers]


async def delete(stack: Stack, ids: list[int], *, clients: int) -> Cost:
    """Delete VMs, each awaited until it is gone."""
    requests = (stack.endpoint.request("DELETE", f"/api/v1/vms/{vm_id}") for vm_id in ids)
    cost = await measured(stack, requests, clients, 300.0)
    cost.load.expect(204)
    return cost


async def get(stack: Stack, ids: list[int], number: int, *, clients: int) -> Cost:
    """Read single VMs, in turn."""
    requests = (stack.endpoint.request("GET", f"/api/v1/vms/{vm_id}") for vm_id in itertools.cycle(ids))
    cost = await measured(stack, itertools.islice(requests, number), clients, 30.0)
    cost.load.expect(200)
    return cost


async def list_page(stack: Stack, number: int, *, clients: int) -> Cost:
    """Read the first hundred VMs, again and again."""
    request = stack.endpoint.request("GET", "/api/v1/vms?limit=100")
    cost = await measured(stack, itertools.repeat(request, number), clients, 30.0)
    cost.load.expect(200)
    return cost


async def import_image(stack: Stack) -> None:
    """Something that the fake storage takes for the image ``tiny``."""
    path = "/api/v1/images?name=tiny&format=raw"
    request = stack.endpoint.request("POST", path, bytes(2**20), "application/octet-stream")
    (await load.run(stack.endpoint, iter([request]), clients=1, most_s=30.0)).expect(201)
