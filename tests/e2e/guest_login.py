"""A guest as its user has it: by SSH, with one key."""

from __future__ import annotations

import subprocess
from pathlib import Path

from polling import until
from public_client import Api, Json

BOOT_S = 120.0
_OPTIONS = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


class Guest:
    """Logs in at an address."""

    def __init__(self, ip: str, key: Path) -> None:
        self.ip = ip
        self._key = key

    def ssh(self, script: str, user: str = "root", timeout_s: float = 30.0) -> subprocess.CompletedProcess[bytes]:
        """Run a shell script in the guest, whatever becomes of it."""
        options = [word for option in (*_OPTIONS, "ConnectTimeout=5") for word in ("-o", option)]
        command = ["ssh", "-i", str(self._key), *options, f"{user}@{self.ip}", script]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)

    def run(self, script: str, user: str = "root", timeout_s: float = 30.0) -> str:
        """What a script prints; it must succeed."""
        done = self.ssh(script, user, timeout_s)
        assert done.returncode == 0, f"{script!r} in {self.ip}: {done.returncode} {done.stderr!r} {done.stdout!r}"
        return done.stdout.decode().strip()

    def wait(self, script: str = "true", timeout_s: float = BOOT_S) -> str:
        """What a script prints once it succeeds."""

        def look() -> tuple[str] | None:
            done = self.ssh(script)
            return (done.stdout.decode().strip(),) if done.returncode == 0 else None

        return until(look, f"{script!r} in {self.ip}", timeout_s, every_s=0.2)[0]


class Fleet:
    """Guests by name, once they answer."""

    def __init__(self, api: Api, key: Path) -> None:
        self._api = api
        self._key = key

    def __call__(self, name: str) -> tuple[Json, Guest]:
        vm = self._api.wait_ready(name)
        return vm, Guest(vm["ip"], self._key)
