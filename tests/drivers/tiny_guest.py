"""A real guest, spoken to through its agent."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
from waiting import eventually_true

from internal_api.drivers.libvirt_driver import LibvirtHypervisor
from internal_api.drivers.protocols import DiskSource, DomainDisk, DomainSpec

BOOT_S = 120.0
ANSWER_S = 30


def tiny(spec: DomainSpec, image: Path, folder: Path) -> DomainSpec:
    """The domain with a clone of the tiny image as its system disk."""
    root = folder / "root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(root)], check=True)
    return replace(spec, ram_mib=128, disks=(DomainDisk(DiskSource("file", str(root), "qcow2"), 0, "disk-0"),))


async def wait_for_agent(hypervisor: LibvirtHypervisor, spec: DomainSpec) -> None:
    await eventually_true(lambda: hypervisor.agent_answers(spec.uuid, 2.0), BOOT_S)


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """``operator`` is a connection to libvirt other than the driver's."""

    operator: Any
    spec: DomainSpec

    async def run(self, script: str) -> str:
        """What a shell script prints; it must succeed."""
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = (await self.ask("guest-exec", arguments))["pid"]
        async with asyncio.timeout(ANSWER_S):
            while not (status := await self.ask("guest-exec-status", {"pid": pid}))["exited"]:
                await asyncio.sleep(0.05)
        printed = base64.b64decode(status.get("out-data", "")).decode()
        assert status.get("exitcode") == 0, (script, printed, base64.b64decode(status.get("err-data", "")))
        return printed.strip()

    async def disk_of(self, serial: str) -> str | None:
        """The name that the guest has for the disk."""
        found = await self.run(f"grep -lx {serial} /sys/block/*/serial || true")
        return found.split("/")[3] if found else None

    async def ask(self, command: str, arguments: dict[str, object] | None = None, *, timeout_s: int = ANSWER_S) -> Any:
        """What the agent answers; None when it does not."""
        text = json.dumps({"execute": command, "arguments": arguments or {}})
        try:
            return json.loads(await asyncio.to_thread(self._send, text, timeout_s))["return"]
        except libvirt.libvirtError:
            return None

    def _send(self, text: str, timeout_s: int) -> str:
        handle = self.operator.lookupByUUID(self.spec.uuid.bytes)
        return str(libvirt_qemu.qemuAgentCommand(handle, text, timeout_s, 0))


class Qemu:
    """QEMU itself, beneath libvirt: how a test writes to disks without a guest."""

    def __init__(self, operator: Any, spec: DomainSpec) -> None:
        self._operator = operator
        self._spec = spec

    async def io(self, slot: int, command: str) -> str:
        """A command of ``qemu-io`` on the image that the guest has open."""
        line = f'qemu-io -d /machine/peripheral/virtio-disk{slot}/virtio-backend "{command}"'
        answer = await asyncio.to_thread(self._send, line)
        assert "rror" not in answer and "failed" not in answer, answer
        return answer

    async def capacity(self, slot: int) -> int:
        def look() -> int:
            handle = self._operator.lookupByUUID(self._spec.uuid.bytes)
            return int(handle.blockInfo(f"vd{chr(ord('a') + slot)}")[0])

        return await asyncio.to_thread(look)

    def _send(self, line: str) -> str:
        handle = self._operator.lookupByUUID(self._spec.uuid.bytes)
        return str(libvirt_qemu.qemuMonitorCommand(handle, line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP))
