"""Running system commands, with errors for people."""

import json
import os
import subprocess
from typing import Any

from terrace.stack.errors import StackError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*command: str, input: str | None = None, env: dict[str, str] | None = None, timeout_s: float = 60.0) -> str:
    """Standard output of a command. Raises StackError with its messages if it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/root"), **(env or {})},
        )
    except FileNotFoundError:
        raise StackError(f"{command[0]} is not installed; scripts/up installs it.") from None
    except subprocess.TimeoutExpired:
        raise StackError(f"`{' '.join(command)}` did not end within {timeout_s:g} s.") from None
    if done.returncode != 0:
        raise StackError(f"`{' '.join(command)}` failed.", (done.stderr + done.stdout).strip())
    return done.stdout


def succeeds(*command: str) -> bool:
    try:
        run(*command)
    except StackError:
        return False
    return True


def run_json(*command: str) -> Any:
    return json.loads(run(*command) or "[]")


def member_environment(**extra: str) -> dict[str, str]:
    """What every member gets: of the caller's environment only the way to the outside world."""
    passed = (
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
    )
    found = {name: value for name in passed if (value := os.environ.get(name))}
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **found, **extra}
