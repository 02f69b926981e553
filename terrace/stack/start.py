"""Starting a stack, or making sure that a running one is as it should be."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from terrace.stack import ceph_stack, conflicts, files, first_vm, host_network, machine, plan, services, stop
from terrace.stack.control import Control, MemberStatus, start_supervisor
from terrace.stack.follow import apply_and_follow
from terrace.stack.layout import Layout
from terrace.stack.lock import locked
from terrace.stack.member import Member
from terrace.stack.progress import Progress
from terrace.stack.public_api import PublicApi, wait_http_ok
from terrace.stack.settings import StackSettings


@dataclass(frozen=True)
class Options:
    """What a start does beyond the members. `image`: the guest image to upload as `tiny` (None: none)."""

    image: Path | None = None
    first_vm: bool = True


@dataclass(frozen=True)
class Endpoint:
    """How to speak to a stack that is up. `ssh`: the command that logs in to the first VM, if any."""

    url: str
    token: str
    ssh: tuple[str, ...] = ()


def up(settings: StackSettings, options: Options | None = None, progress: Progress | None = None) -> Endpoint:
    """Starts what doesn't run and waits until all is healthy; to be called in the stack's network namespace.

    Raises StackError; then what this call had started is stopped again (a stack that ran before is left).
    """
    progress = progress or Progress.silent()
    layout = settings.layout
    layout.var.mkdir(parents=True, exist_ok=True)
    with locked(layout.lock_file, lambda: progress.say("waiting for another scripts/up or scripts/down")):
        ran_before = Control(layout.control_socket).is_running()
        try:
            return _up(machine.with_capacity(settings), options or Options(), progress)
        except BaseException:
            if not ran_before:
                progress.say("failed: stopping what was started")
                stop.stop_all(settings, Progress.silent())
            raise


def _up(settings: StackSettings, options: Options, progress: Progress) -> Endpoint:
    layout = settings.layout
    for directory in (layout.run, layout.log):
        directory.mkdir(exist_ok=True)
    layout.secrets.mkdir(mode=0o700, exist_ok=True)
    layout.make_sockets()
    settings.save()
    control = Control(layout.control_socket)
    if not control.is_running():
        stop.end_leftovers(layout)
    if settings.profile == "qemu":
        _ensure_network(settings, progress)
    ceph_stack.ensure(settings, progress)
    plan.prepare(settings)
    members = plan.members(settings)
    _start_members(settings, members, control, progress)
    url = services.public_url(settings)
    wait_http_ok(f"http://127.0.0.1:{settings.ports.internal}/readyz", "The internal tier")
    wait_http_ok(f"{url}/readyz", "The public API")
    progress.say(f"healthy: {url}")
    token = layout.token_file.read_text().strip()
    _write_env(layout, url, token)
    return Endpoint(url, token, _ensure_guest(settings, options, PublicApi(url, token), progress))


def _ensure_network(settings: StackSettings, progress: Progress) -> None:
    conflicts.refuse_network(settings)
    host_network.ensure(settings)
    for chain in host_network.forwarding_blockers():
        progress.say(
            f"note: this machine's firewall ({chain}) drops what it forwards; guests reach the outside only "
            f"when it accepts the interface {settings.bridge}"
        )


def _start_members(settings: StackSettings, members: list[Member], control: Control, progress: Progress) -> None:
    running = control.is_running()
    before = {one.name: one for one in control.status()} if running else {}
    conflicts.refuse_ports(settings, [member for member in members if _is_idle(before.get(member.name))])
    if not running:
        control = start_supervisor(settings.layout)
    apply_and_follow(settings.layout, control, members, progress)


def _is_idle(status: MemberStatus | None) -> bool:
    return status is None or status.pid is None


def _write_env(layout: Layout, url: str, token: str) -> None:
    values = {"TERRACE_URL": url, "TERRACE_TOKEN": token, "TERRACE_SSH_KEY": str(layout.ssh_key)}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    files.write(layout.env_file, "\n".join(lines) + "\n", 0o600)
    files.give_to_caller(layout.env_file)


def _ensure_guest(settings: StackSettings, options: Options, api: PublicApi, progress: Progress) -> tuple[str, ...]:
    if options.image is not None:
        first_vm.ensure_image(api, options.image, progress)
    first_vm.ensure_key(api, settings.layout)
    if not options.first_vm:
        return ()
    address = str(first_vm.ensure_vm(api, progress)["ip"])
    command = first_vm.ssh_command(settings.layout, address)
    first_vm.wait_login(command, address)
    progress.say(f"VM {first_vm.VM} answers at {address}: login works")
    return tuple(command)
