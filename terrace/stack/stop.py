"""Taking a stack down, whole or half-broken; what is absent counts as stopped."""

import os
import shutil
import signal
from pathlib import Path

from terrace.stack import ceph_stack, guest_filters, guests, host_network, namespace, process_record
from terrace.stack.control import Control
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.lock import locked
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings

# what a stack puts under `var`; a purge removes nothing else
OURS = (
    "run",
    "sock",
    "log",
    "secrets",
    "config",
    "postgres",
    "ceph",
    "ssh",
    "cache",
    "images",
    "stack.env",
    "env",
    ".lock",
)
SUPERVISOR_S = 40.0


def down(settings: StackSettings, *, purge: bool = False, progress: Progress | None = None) -> None:
    """Stops everything of the stack and keeps its data; `purge` removes the data too.

    To be called in the stack's network namespace.
    """
    progress = progress or Progress.silent()
    layout = settings.layout
    if not layout.var.is_dir():
        remove_network(settings)
        progress.say(f"nothing to stop: there is no {layout.var}")
        return
    with locked(layout.lock_file, lambda: progress.say("waiting for another scripts/up or scripts/down")):
        stop_all(settings, progress)
        if purge:
            _purge(layout)
            progress.say("data removed")


def stop_all(settings: StackSettings, progress: Progress) -> None:
    """API nodes first, so that none of them takes the guests' shutdown for something to repair."""
    layout = settings.layout
    control = Control(layout.control_socket)
    if not _stop_services(control, keep={"postgres", "redis", *settings.hypervisors}):
        end_supervisor(layout)
        _end_recorded(layout, keep=set(settings.hypervisors))
    progress.say("API nodes stopped")
    if settings.profile == "qemu":
        stopped = guests.shut_down(settings)
        progress.say(f"guests stopped: {stopped}")
    end_supervisor(layout)
    end_leftovers(layout)
    if orphans := guests.end_all(_nodes(layout)):
        progress.say(f"processes left behind, now ended: {orphans}")
    ceph_stack.stop(settings, progress)
    if layout.short_sockets.is_symlink() and layout.sockets == layout.short_sockets:
        layout.short_sockets.unlink()
    remove_network(settings)
    progress.say("stack stopped")


def end_leftovers(layout: Layout) -> None:
    """Ends the members of a supervisor that died, before another one starts them; guests live on."""
    _end_recorded(layout, keep=set())
    shutil.rmtree(layout.pids, ignore_errors=True)


def _stop_services(control: Control, keep: set[str]) -> bool:
    """False when there is no supervisor, or none that can do it."""
    try:
        control.stop(*({member.name for member in control.status()} - keep))
    except StackError:
        return False
    return True


def remove_network(settings: StackSettings) -> None:
    """Bridge and tables, if they are ours."""
    if settings.profile == "qemu" and os.geteuid() == 0 and namespace.is_inside(settings):
        guest_filters.remove(settings)
        host_network.remove(settings)


def end_supervisor(layout: Layout) -> None:
    process = process_record.living(layout.pids).get("supervisor")
    if process is None:
        return
    process_record.end([process], signal.SIGTERM, SUPERVISOR_S)


def _end_recorded(layout: Layout, keep: set[str]) -> None:
    """Ends members whose supervisor is gone; the databases last."""
    recorded = process_record.living(layout.pids)
    first = [process for name, process in recorded.items() if name not in keep | {"postgres", "redis", "supervisor"}]
    process_record.end(first, signal.SIGTERM, 5.0)
    databases = [recorded[name] for name in ("postgres", "redis") if name in recorded]
    process_record.end(databases, signal.SIGINT, 10.0)


def _nodes(layout: Layout) -> list[Path]:
    """Directories of all nodes that there ever were, also of those that a setting no longer names."""
    return sorted(path.parent for path in layout.var.glob("hv*/lib"))


def _purge(layout: Layout) -> None:
    for path in [layout.var / name for name in OURS] + sorted(layout.var.glob("hv[0-9]*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not any(layout.var.iterdir()):
        layout.var.rmdir()
