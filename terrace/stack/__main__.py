"""The commands behind scripts/up, scripts/down and scripts/stack: `python -m terrace.stack COMMAND`."""

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from terrace.stack import ceph_stack, namespace, status_table
from terrace.stack.control import Control
from terrace.stack.errors import StackError, told
from terrace.stack.process_record import signal_number
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings
from terrace.stack.start import Endpoint, Options, up
from terrace.stack.stop import down

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NEXT = """\

Terrace is up.

  public URL   {url}
  token        {token}
  first VM     {ssh}

Next:
  . {env}    # sets TERRACE_URL, TERRACE_TOKEN and PATH for the shell
  terrace vm list
  terrace vm create second --image tiny
  curl -H "Authorization: Bearer $TERRACE_TOKEN" {url}/api/v1/vms
  {url}/docs    the API's documentation
  scripts/stack status    the members of the stack
  scripts/test            all tests
  scripts/down            stops everything and keeps the data"""
ON_CEPH = """
  scripts/ceph status     the Ceph cluster that holds the disks
  scripts/ceph kill osd.0 and scripts/ceph start osd.0: a disk fails, and comes back"""


def main() -> int:
    arguments = _parser().parse_args()
    return told(lambda: _run(arguments, StackSettings.load(CHECKOUT)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/stack", description="The members of the local stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start everything (scripts/up does more: packages, environment, image)")
    start.add_argument("--no-vm", action="store_true", help="do not create a first VM")
    start.add_argument("--image", type=Path, help="guest image to upload as `tiny`")
    commands.add_parser("check", help="only read the settings; silent when they can be used")
    end = commands.add_parser("down", help="stop everything (scripts/down)")
    end.add_argument("--purge", action="store_true", help="also remove all data")
    status = commands.add_parser("status", help="all members; the exit status is 1 when one is not well")
    status.add_argument("--json", action="store_true", help="for programs")
    for name in ("start", "stop", "restart"):
        commands.add_parser(name, help=f"{name} one member").add_argument("member")
    kill = commands.add_parser("kill", help="signal a member's main process; the supervisor starts it again")
    kill.add_argument("member")
    kill.add_argument("signal", nargs="?", default="KILL", help="a signal's name or number (KILL)")
    logs = commands.add_parser("logs", help="show a member's log")
    logs.add_argument("member")
    logs.add_argument("-f", "--follow", action="store_true", help="show new lines as they come")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many of the last lines (50)")
    return parser


def _run(arguments: argparse.Namespace, settings: StackSettings) -> int:
    control = Control(settings.layout.control_socket)
    match arguments.command:
        case "check":
            pass
        case "up" | "down" if not namespace.is_inside(settings):
            return _in_namespace(arguments, settings)
        case "up":
            endpoint = up(settings, Options(arguments.image, not arguments.no_vm), Progress())
            print(_next_steps(settings, endpoint))
        case "down":
            down(settings, purge=arguments.purge, progress=Progress())
        case "status":
            return _status(settings, control, arguments.json)
        case "start":
            control.start(arguments.member)
            control.wait(arguments.member)
        case "stop":
            control.stop(arguments.member)
        case "restart":
            control.restart(arguments.member)
            control.wait(arguments.member)
        case "kill":
            control.kill(arguments.member, signal_number(arguments.signal))
        case "logs":
            _logs(settings, arguments)
    return 0


def _in_namespace(arguments: argparse.Namespace, settings: StackSettings) -> int:
    """Does it in the stack's own network namespace, which lives as long as the stack."""
    if arguments.command == "up":
        namespace.ensure(settings)
    elif not namespace.exists(settings):
        down(settings, purge=arguments.purge, progress=Progress())
        return 0
    status = subprocess.call(namespace.command(settings, [sys.executable, "-m", "terrace.stack", *sys.argv[1:]]))
    if not Control(settings.layout.control_socket).is_running():
        namespace.remove(settings)
    return status


def _next_steps(settings: StackSettings, endpoint: Endpoint) -> str:
    inside = f"sudo ip netns exec {settings.netns} " if settings.netns else ""
    ssh = inside + shlex.join(endpoint.ssh) if endpoint.ssh else "not created (scripts/up without --no-vm creates it)"
    env = _nearest(settings.layout.env_file)
    text = NEXT.format(url=endpoint.url, token=f"{endpoint.token} (also in {env})", ssh=ssh, env=env)
    if settings.storage == "rbd":
        text += ON_CEPH
    if settings.netns:
        text += f"\n\nAll of it lives in a network namespace; this runs a command there: {inside}COMMAND"
    return text


def _nearest(path: Path) -> Path:
    """As a person would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _status(settings: StackSettings, control: Control, as_json: bool) -> int:
    members = control.check()
    is_well = all(member.is_well for member in members)
    if as_json:
        print(json.dumps([dataclasses.asdict(member) for member in members], indent=2))
    else:
        print(status_table.table(members))
        if settings.storage == "rbd":
            line, ceph_is_well = ceph_stack.summary(settings)
            print(f"\n{line}")
            is_well = is_well and ceph_is_well
    return 0 if is_well else 1


def _logs(settings: StackSettings, arguments: argparse.Namespace) -> None:
    log = settings.layout.log_of(arguments.member)
    if "/" in arguments.member or not log.exists():
        known = sorted(path.stem for path in settings.layout.log.glob("*.log"))
        raise StackError(f"There is no log of {arguments.member}; there are: {', '.join(known)}.")
    follow = ["-F"] if arguments.follow else []
    os.execvp("tail", ["tail", "-n", str(max(0, arguments.lines)), *follow, str(log)])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
