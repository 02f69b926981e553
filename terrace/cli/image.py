"""``terrace image``: what VMs start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from terrace.cli.cells import age, field, gib, size_bytes
from terrace.cli.client import path_of
from terrace.cli.complete import image_names, snapshot_names_of_source, vm_names
from terrace.cli.failures import usage
from terrace.cli.options import Limit, Output, Timeout, Wait, Yes
from terrace.cli.output import Column, print_list, print_one
from terrace.cli.session import session_of
from terrace.cli.several import delete_each
from terrace.cli.upload import upload_image
from terrace.cli.watch import deadline_after, settled

image_app = typer.Typer(no_args_is_help=True, help="Images: the disks that VMs start from.")

_COLUMNS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), right=True),
    Column("STATUS", field("status")),
    Column("FORMAT", field("format")),
    Column("SIZE", lambda image: size_bytes(image.get("size_bytes")), right=True),
    Column("MIN DISK", gib("min_disk_gib"), right=True),
    Column("AGE", age("created_at"), right=True),
)


class DiskFormat(StrEnum):
    """Formats of disks that can be imported."""

    QCOW2 = "qcow2"
    RAW = "raw"


@image_app.command("list")
def list_images(ctx: typer.Context, limit: Limit = None, output: Output = None) -> None:
    """List images."""
    session = session_of(ctx)
    with session.api() as api:
        print_list(list(api.pages("/images", [], limit)), _COLUMNS, output or session.output)


@image_app.command("show")
def show_image(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(help="Name or id.", autocompletion=image_names)],
    output: Output = None,
) -> None:
    """Show everything about an image."""
    session = session_of(ctx)
    with session.api() as api:
        print_one(api.get(path_of("images", image)), output or session.output)


@image_app.command("create")
def create_image(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name.")],
    file: Annotated[Path | None, typer.Option(help="Disk file to upload.")] = None,
    url: Annotated[str | None, typer.Option(help="Where the platform fetches the disk itself.")] = None,
    from_vm: Annotated[
        str | None, typer.Option(help="VM to copy the system disk of, running or not.", autocompletion=vm_names)
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(
            help="Snapshot of --from-vm to copy. [default: the disk as it is now]",
            autocompletion=snapshot_names_of_source,
        ),
    ] = None,
    format_: Annotated[DiskFormat | None, typer.Option("--format", help="[default: what the file says it is]")] = None,
    checksum: Annotated[
        str | None,
        typer.Option(metavar="sha256:HEX", help="What the disk must have. [default of --file: computed]"),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = 600,
    output: Output = None,
) -> None:
    """Import an image from a file or a URL, checked by its SHA-256, or copy a VM's system disk."""
    if sum(source is not None for source in (file, url, from_vm)) != 1:
        raise usage("Give one of --file, --url and --from-vm.")
    if from_vm is None and snapshot is not None:
        raise usage("--snapshot goes with --from-vm.")
    if from_vm is not None and (format_ or checksum):
        raise usage("--format and --checksum go with --file or --url.")
    disk_format = format_.value if format_ else None
    session = session_of(ctx)
    with session.api() as api:
        deadline = deadline_after(timeout) if wait else None
        if file is not None:
            reply = upload_image(api, name, file, disk_format, checksum)
        else:
            source = {"url": url, "format": disk_format, "checksum": checksum, "vm": from_vm, "snapshot": snapshot}
            given = {key: value for key, value in source.items() if value}
            reply = api.change("POST", "/images", {"name": name, **given})
        image = settled(api, reply, lambda made: path_of("images", made["id"]), deadline)
    print_one(image, output or session.output)


@image_app.command("delete")
def delete_images(
    ctx: typer.Context,
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Names or ids.", autocompletion=image_names)],
    yes: Yes = False,
) -> None:
    """Delete images that no VM was made from."""
    delete_each(session_of(ctx), "image", image, ["images"], yes)
