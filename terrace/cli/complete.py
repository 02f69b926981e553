"""Shell completion of names: asks the API, briefly, and says nothing when that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from terrace.cli.client import path_of
from terrace.cli.failures import Failure
from terrace.cli.output import Format
from terrace.cli.session import Session

_TIMEOUT_S = 1.0

Completer = Callable[[typer.Context, str], list[tuple[str, str]]]


def names_of(collection: str | Callable[[typer.Context], str], field: str = "name", about: str = "status") -> Completer:
    """A completer of one field of a collection, each with another field as its description.

    The collection is a path below /api/v1, or what tells it from the rest of the command line.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        options = ctx.find_root().params
        token_file = options.get("token_file")
        session = Session(options.get("url"), Path(token_file) if token_file else None, Format.TABLE)
        try:
            with session.impatient_api(_TIMEOUT_S) as api:
                items = api.get(f"/{collection}" if isinstance(collection, str) else collection(ctx))
            found = [(str(item[field]), str(item.get(about) or "")) for item in items]
        except (Failure, AttributeError, KeyError, TypeError):
            return []
        return [(name, description) for name, description in found if name.startswith(incomplete)]

    return complete


def _snapshots_of(parameter: str) -> Callable[[typer.Context], str]:
    return lambda ctx: path_of("vms", ctx.params[parameter] or "", "snapshots")


vm_names = names_of("vms")
image_names = names_of("images")
key_names = names_of("ssh-keys", about="fingerprint")
node_names = names_of("nodes", about="state")
volume_names = names_of("volumes")
snapshot_names = names_of(_snapshots_of("vm"), about="created_at")
snapshot_names_of_source = names_of(_snapshots_of("from_vm"), about="created_at")
network_names = names_of("networks", about="subnet")
operation_ids = names_of("operations", field="id", about="kind")
