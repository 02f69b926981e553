"""``terrace vm start|stop|reboot|reset|poweroff|delete``."""

from __future__ import annotations

from typing import Annotated

import typer

from terrace.cli.client import path_of
from terrace.cli.complete import vm_names
from terrace.cli.options import Output, Timeout, Wait, Yes
from terrace.cli.output import print_several
from terrace.cli.reply import Json
from terrace.cli.session import session_of
from terrace.cli.several import Tally, change_each, delete_each
from terrace.cli.ssh import forget_host_key
from terrace.cli.vm import COLUMNS

Vms = Annotated[list[str], typer.Argument(metavar="VM", help="Names or ids.", autocompletion=vm_names)]
Grace = Annotated[
    int | None,
    typer.Option(min=1, max=600, metavar="SECONDS", help="How long the guest may take before it is cut off."),
]


def start(ctx: typer.Context, vm: Vms, wait: Wait = True, timeout: Timeout = 300, output: Output = None) -> None:
    """Start VMs."""
    _act(ctx, "start", vm, None, timeout if wait else None, output)


def stop(
    ctx: typer.Context,
    vm: Vms,
    grace: Grace = None,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Stop VMs as their guests want it: by agent, else by power button, else by cutting the power."""
    _act(ctx, "stop", vm, grace, timeout if wait else None, output)


def reboot(
    ctx: typer.Context,
    vm: Vms,
    grace: Grace = None,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Reboot VMs as their guests want it."""
    _act(ctx, "reboot", vm, grace, timeout if wait else None, output)


def reset(ctx: typer.Context, vm: Vms, wait: Wait = True, timeout: Timeout = 300, output: Output = None) -> None:
    """Reset VMs at once, as a reset button does."""
    _act(ctx, "reset", vm, None, timeout if wait else None, output)


def poweroff(ctx: typer.Context, vm: Vms, wait: Wait = True, timeout: Timeout = 300, output: Output = None) -> None:
    """Cut the power of VMs at once, also while a stop is waiting."""
    _act(ctx, "poweroff", vm, None, timeout if wait else None, output)


def delete(
    ctx: typer.Context,
    vm: Vms,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Delete VMs with their system disks and snapshots, and the volumes that go with them. Prints something on
    stdout only with --no-wait.
    """
    session = session_of(ctx)
    delete_each(
        session,
        "VM",
        vm,
        ["vms"],
        yes,
        wait_s=timeout if wait else None,
        columns=COLUMNS,
        output=output,
        forget=lambda gone: forget_host_key(session.checked_url(), gone),
    )


def _act(
    ctx: typer.Context, action: str, vms: list[str], grace_s: int | None, wait_s: float | None, output: Output
) -> None:
    body: Json | None = None if grace_s is None else {"timeout_s": grace_s}
    session, tally = session_of(ctx), Tally()
    with session.api() as api:
        replies = change_each(
            api,
            vms,
            lambda name: api.change("POST", path_of("vms", name, "actions", action), body),
            wait_s,
            tally,
        )
        now = [api.get(path_of("vms", reply.body["id"])) if operation else reply.body for reply, operation in replies]
    print_several(now, COLUMNS, output or session.output)
    tally.end()
