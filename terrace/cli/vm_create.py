"""``terrace vm create``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace.cli import inputs
from terrace.cli.client import path_of
from terrace.cli.complete import image_names, key_names, network_names
from terrace.cli.failures import usage
from terrace.cli.options import Output, Timeout, Wait
from terrace.cli.output import Format, say
from terrace.cli.session import session_of
from terrace.cli.vm import print_vm
from terrace.cli.watch import deadline_after, settled, wait_ready


def create_vm(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")],
    cpu: Annotated[int | None, typer.Option(help="Virtual CPUs. [default: the API's, 1]")] = None,
    ram: Annotated[
        str | None,
        typer.Option("--ram", "--ram-mib", metavar="SIZE", help="Memory: 1024 (MiB) or 2G. [default: 512]"),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option("--disk", "--disk-gib", metavar="SIZE", help="Disk: 20 (GiB), 20G or 1T. [default: 10]"),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Image to start from. [default: tiny]", autocompletion=image_names)
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that may log in: a stored key's name, a .pub file, or a public key; repeatable. "
            "[default: $TERRACE_SSH_KEY.pub]",
            autocompletion=key_names,
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Network. [default: default]", autocompletion=network_names)
    ] = None,
    user_data: Annotated[
        Path | None, typer.Option(metavar="FILE|-", help="cloud-config or script for the first start.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC:DEST[:MODE]", help="Text file to put into the guest; repeatable."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label; repeatable.")] = None,
    password_hash: Annotated[
        str | None, typer.Option(metavar="HASH", help="Console password, as `openssl passwd -6` prints it.")
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:SIZE[:delete]",
            help="Volume to make and plug in: data:20 (GiB), or data:20:delete to delete it with the VM; repeatable.",
        ),
    ] = None,
    wait: Wait = True,
    ready: Annotated[bool, typer.Option("--wait-ready", help="Wait also until the guest answers.")] = False,
    timeout: Timeout = 300,
    output: Output = None,
) -> None:
    """Create a VM and wait until it has started."""
    if ready and not wait:
        raise usage("--wait-ready and --no-wait exclude each other.")
    fields = {
        "cpu": cpu,
        "ram_mib": inputs.ram_mib(ram) if ram else None,
        "disk_gib": inputs.disk_gib(disk) if disk else None,
        "image": image,
        "network": network,
        "password_hash": password_hash,
        "user_data": inputs.read_text(user_data, "the user-data") if user_data else None,
        "files": [inputs.file_entry(one) for one in file or []] or None,
        "volumes": [inputs.volume_entry(one) for one in volume or []] or None,
        "labels": inputs.labels(label or []) or None,
        "ssh_keys": _keys(key, password_hash, user_data) or None,
    }
    body: dict[str, Any] = {
        "name": name,
        **{key: value for key, value in fields.items() if value is not None},
    }
    session = session_of(ctx)
    with session.api() as api:
        deadline = deadline_after(timeout)
        reply = api.change("POST", "/vms", body)
        vm = settled(api, reply, lambda made: path_of("vms", made["id"]), deadline if wait else None)
        if ready:
            vm = wait_ready(api, name, deadline)
    shown = output or session.output
    print_vm(vm, shown)
    if shown is Format.TABLE and wait:
        say(f"Log in: terrace vm ssh {name}")


def _keys(given: list[str] | None, *other_ways_in: object) -> list[str]:
    if given:
        return [inputs.public_key(one) for one in given]
    keys = inputs.default_keys(os.environ.get("TERRACE_SSH_KEY"))
    if not keys and not any(other_ways_in):
        say("No --key given, and no TERRACE_SSH_KEY: nobody will be able to log in.")
    return keys
