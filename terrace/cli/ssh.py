"""``terrace vm ssh``: logs in to a guest with the system's ssh."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from terrace.cli.client import path_of
from terrace.cli.complete import vm_names
from terrace.cli.failures import ExitCode, Failure
from terrace.cli.options import Timeout
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.watch import deadline_after, wait_ready


def ssh(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(help="Name or id.", autocompletion=vm_names)],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="What to run there instead of a shell; write -- before it."),
    ] = None,
    user: Annotated[str, typer.Option("--user", "-l", help="User to log in as.")] = "root",
    identity: Annotated[
        Path | None,
        typer.Option("--identity", "-i", envvar="TERRACE_SSH_KEY", help="Private key. [default: ssh's own choice]"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Option for ssh, see ssh_config(5); repeatable."),
    ] = None,
    timeout: Timeout = 180,
) -> None:
    """Log in to a VM, once its guest answers. The exit code is that of the command, 255 if ssh failed."""
    session = session_of(ctx)
    with session.api() as api:
        guest = api.get(path_of("vms", vm))
        if not guest.get("ready_at") or guest.get("status") != "running":
            guest = wait_ready(api, vm, deadline_after(timeout))
    if not guest.get("ip"):
        raise Failure(ExitCode.FAILED, f"VM {vm} has no address yet.", hint=f"`terrace vm show {vm}` shows it.")
    known_hosts = known_hosts_file(session.checked_url(), guest)
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = ssh_arguments(guest, known_hosts, user, identity, option or [], command or [])
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 - a list of arguments, and no shell
    except FileNotFoundError:
        raise Failure(
            ExitCode.FAILED, "There is no ssh on this machine.", hint="On Debian: apt install openssh-client"
        ) from None


def ssh_arguments(
    guest: Json,
    known_hosts: Path,
    user: str,
    identity: Path | None,
    options: Sequence[str],
    command: Sequence[str],
) -> list[str]:
    """The command line of ssh. What the person gave comes first: ssh takes an option's first value."""
    settings = [
        *options,
        f"UserKnownHostsFile={_quoted(known_hosts)}",
        # addresses are used again by other VMs, ids are not
        f"HostKeyAlias=terrace-{guest['id']}",
        "StrictHostKeyChecking=accept-new",
        "CheckHostIP=no",
        "ConnectTimeout=5",
        # a guest's agent may answer a moment before its sshd
        "ConnectionAttempts=10",
    ]
    if identity is not None:
        settings.append("IdentitiesOnly=yes")
    arguments = ["ssh"]
    for setting in settings:
        arguments += ["-o", setting]
    if identity is not None:
        arguments += ["-i", str(identity.expanduser())]
    return [*arguments, "-l", user, "--", str(guest["ip"]), *command]


def known_hosts_file(url: str, guest: Json) -> Path:
    """The file with one VM's host key: ids start again where an installation is made anew, times don't."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    born = "".join(char for char in str(guest.get("created_at")) if char.isalnum())
    host = urlsplit(url).netloc.rpartition("@")[2].replace(":", "_")
    return Path(base).expanduser() / "terrace" / "known_hosts" / f"{host}-{guest['id']}-{born}"


def forget_host_key(url: str, guest: Json) -> None:
    """Removes what was remembered about a VM that is gone."""
    known_hosts_file(url, guest).unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    # ssh splits this option's value at blanks and expands % (ssh_config(5))
    return '"' + str(path).replace("%", "%%") + '"'
