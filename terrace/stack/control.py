"""Orders to a running supervisor."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import terrace
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.log_files import tail
from terrace.stack.member import Member, to_json

PATIENCE_S = 120.0


@dataclass(frozen=True)
class MemberStatus:
    """One member as the supervisor sees it. `since`: seconds of the epoch when it entered this state."""

    name: str
    state: str
    pid: int | None
    restarts: int
    since: float
    ports: list[int]
    reason: str

    @property
    def is_well(self) -> bool:
        return self.state in ("ready", "done")


class Control:
    """The client of one stack's supervisor. Works from any network namespace: its socket is a file."""

    def __init__(self, control_socket: Path) -> None:
        self._socket = control_socket

    def is_running(self) -> bool:
        try:
            with self._connect():
                return True
        except OSError:
            return False

    def status(self) -> list[MemberStatus]:
        return self._order({"order": "status"})

    def check(self) -> list[MemberStatus]:
        """Status after asking every member again whether it works."""
        return self._order({"order": "check"})

    def apply(self, members: list[Member]) -> list[MemberStatus]:
        return self._order({"order": "apply", "members": to_json(members)})

    def start(self, *names: str) -> list[MemberStatus]:
        return self._order({"order": "start", "names": names})

    def stop(self, *names: str) -> list[MemberStatus]:
        return self._order({"order": "stop", "names": names})

    def restart(self, *names: str) -> list[MemberStatus]:
        """Stops and starts again; returns before they are ready (see `wait`)."""
        return self._order({"order": "restart", "names": names})

    def kill(self, name: str, signal: int = SIGKILL) -> list[MemberStatus]:
        """Signals the member's main process, which the supervisor then starts again."""
        return self._order({"order": "kill", "names": [name], "signal": int(signal)})

    def wait(self, *names: str, timeout_s: float = 60.0) -> None:
        """Until these members (all, when none is named) are well; StackError when one fails or is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            unwell = [one for one in self.status() if not one.is_well and (not names or one.name in names)]
            if not unwell:
                return
            for one in unwell:
                if one.state == "failed" or time.monotonic() > deadline:
                    raise StackError(f"{one.name} is {one.state}: {one.reason or 'it took too long'}.")
            time.sleep(0.05)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(str(self._socket))
        except OSError:
            connection.close()
            raise
        return connection

    def _order(self, order: dict[str, Any]) -> list[MemberStatus]:
        try:
            with self._connect() as connection, connection.makefile("rb") as answers:
                connection.sendall(json.dumps(order).encode() + b"\n")
                line = answers.readline()
        except OSError as error:
            raise StackError("The stack is not running: scripts/up starts it.") from error
        if not line:
            raise StackError("The supervisor ended before it answered.")
        answer = json.loads(line)
        if not answer["ok"]:
            raise StackError(answer["error"])
        return [MemberStatus(**member) for member in answer["members"]]


def start_supervisor(layout: Layout) -> Control:
    """Starts a supervisor that outlives this process, and waits until it listens."""
    log = layout.log_of("supervisor")
    command = ["setsid", "--fork", sys.executable, "-m", "terrace.stack.supervisor", str(layout.var)]
    env = dict(os.environ, PYTHONPATH=str(Path(terrace.__file__).parent.parent))
    with log.open("ab") as output:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", env=env)
    control = Control(layout.control_socket)
    deadline = time.monotonic() + 15
    while not control.is_running():
        if time.monotonic() > deadline:
            raise StackError("The supervisor did not start.", tail(log))
        time.sleep(0.02)
    return control
