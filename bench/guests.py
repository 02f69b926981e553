"""How soon a real guest has started and answers, beside the bare floor of the same guest."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from bench import floor, load, processes
from bench.client import Connection
from bench.report import Aim, Row, Section
from bench.stack import Stack
from internal_api.domain_xml import detect_domain_type

FLOOR = "qemu-img create, virsh define, virsh start"
_BOOT_S = 120.0
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f bench"


@dataclass(slots=True)
class Times:
    """Seconds from the request to the started domain, and to the guest's SSH banner."""

    started: list[float] = field(default_factory=list)
    answering: list[float] = field(default_factory=list)


async def measure(stack: Stack, rounds: int) -> list[Section]:
    """Both ways in turn, one guest at a time, so that they meet the same machine."""
    libvirtd_mib = [mib for name, mib in processes.memory_mib(stack.roots()).items() if name.startswith("hv")]
    await warm_up(stack)
    bare, terrace = Times(), Times()
    for number in range(1, rounds + 1):
        await _bare(stack, number, bare)
        await _through_terrace(stack, number, terrace)
    rows = [
        *compare("started", FLOOR, bare.started, terrace.started, Aim(high=1.2)),
        *compare("SSH answers", FLOOR, bare.answering, terrace.answering),
        Row("memory of one libvirtd without guests", statistics.mean(libvirtd_mib), "MiB"),
    ]
    return [Section("Real guests", how(rounds), rows)]


def how(rounds: int) -> str:
    """How guests are measured beside their floor."""
    kind = f"{floor.CPU} CPU, {floor.RAM_MIB} MiB, {floor.DISK_GIB} GiB"
    return (
        f"Guests of {kind} on real QEMU ({detect_domain_type()}), one at a time, {rounds} of each kind in turn; "
        "medians. The floor's XML is of the same kind and its seed was made beforehand."
    )


def compare(
    what: str, floor_is: str, of_bare: list[float], of_terrace: list[float], aim: Aim | None = None
) -> list[Row]:
    """Medians of seconds, and their ratio."""
    bare, terrace = statistics.median(of_bare), statistics.median(of_terrace)
    return [
        Row(f"{what}: {floor_is}", bare, "s"),
        Row(f"{what}: POST /api/v1/vms", terrace, "s"),
        Row(f"{what}: POST in the bare floor", terrace / bare, "×", aim),
    ]


async def warm_up(stack: Stack) -> None:
    """Two creates on each node: its image must be there, and libvirt's and QEMU's pages in memory."""
    for number in range(1, 2 * stack.settings.nodes + 1):
        await create_vm(stack, f"warm-{number}")
        await delete_vm(stack, f"warm-{number}")


async def _bare(stack: Stack, number: int, times: Times) -> None:
    domain = uuid.uuid4()
    guest = floor.prepare(stack, number, PUBLIC_KEY, domain, floor.file_disks(stack, domain))
    began = time.perf_counter()
    await asyncio.to_thread(guest.start)
    times.started.append(time.perf_counter() - began)
    await _ssh_answers(guest.ip)
    times.answering.append(time.perf_counter() - began)
    guest.remove()


async def _through_terrace(stack: Stack, number: int, times: Times) -> None:
    began = time.perf_counter()
    seconds, vm = await create_vm(stack, f"vm-{number}")
    times.started.append(seconds)
    await _ssh_answers(vm["ip"])
    times.answering.append(time.perf_counter() - began)
    await delete_vm(stack, f"vm-{number}")


async def create_vm(stack: Stack, name: str) -> tuple[float, dict[str, Any]]:
    """A VM like the floor's guests, awaited until it has started: seconds that took, and the VM."""
    vm = {
        "name": name,
        "cpu": floor.CPU,
        "ram_mib": floor.RAM_MIB,
        "disk_gib": floor.DISK_GIB,
        "ssh_keys": [PUBLIC_KEY],
    }
    request = stack.endpoint.request("POST", "/api/v1/vms", json.dumps(vm).encode())
    connection = await Connection.open(stack.endpoint.host, stack.endpoint.port)
    began = time.perf_counter()
    answer = await connection.send(request)
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status != 201:
        raise RuntimeError(f"POST answered {answer.status}: {answer.body.decode()}")
    return seconds, json.loads(answer.body)


async def delete_vm(stack: Stack, name: str) -> None:
    """Delete a VM, awaited until it is gone."""
    removal = stack.endpoint.request("DELETE", f"/api/v1/vms/{name}")
    (await load.run(stack.endpoint, iter([removal]), clients=1, most_s=60.0)).expect(204)


async def _ssh_answers(ip: str) -> None:
    """Until a server says ``SSH-`` (RFC 4253, section 4.2); raises TimeoutError."""
    async with asyncio.timeout(_BOOT_S):
        while True:
            try:
                async with asyncio.timeout(0.5):
                    reader, writer = await asyncio.open_connection(ip, 22)
                    greeting = await reader.readline()
            except (OSError, TimeoutError):
                await asyncio.sleep(0.02)
                continue
            writer.close()
            if greeting.startswith(b"SSH-"):
                return
