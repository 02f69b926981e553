"""A network namespace for a whole stack, when TERRACE_NETNS names one."""

import os
from pathlib import Path

from terrace.stack import commands, host_network
from terrace.stack.errors import StackError
from terrace.stack.settings import StackSettings

# ip-netns(8)
NAMED = Path("/run/netns")


def is_inside(settings: StackSettings) -> bool:
    """Whether this process is where the stack lives."""
    named = NAMED / settings.netns
    return not settings.netns or (named.exists() and os.path.samestat(named.stat(), Path("/proc/self/ns/net").stat()))


def ensure(settings: StackSettings) -> None:
    """Makes the namespace; raises StackError if one of that name is not ours."""
    name = settings.netns
    if not (NAMED / name).exists():
        commands.run("ip", "netns", "add", name)
        commands.run("ip", "-n", name, "link", "set", "lo", "alias", host_network.alias(settings.layout))
        commands.run("ip", "-n", name, "link", "set", "lo", "up")
    if not _is_ours(settings):
        raise StackError(f"The network namespace {name} exists and is not this stack's: set TERRACE_NETNS to another.")


def remove(settings: StackSettings) -> None:
    """Removes the namespace if it is ours."""
    if settings.netns and (NAMED / settings.netns).exists() and _is_ours(settings):
        commands.run("ip", "netns", "del", settings.netns)


def _is_ours(settings: StackSettings) -> bool:
    links = commands.run_json("ip", "-n", settings.netns, "-j", "link", "show", "dev", "lo")
    return bool(links[0].get("ifalias") == host_network.alias(settings.layout))


def command(settings: StackSettings, words: list[str]) -> list[str]:
    """The command that runs `words` inside the namespace."""
    return ["ip", "netns", "exec", settings.netns, *words]


def exists(settings: StackSettings) -> bool:
    return (NAMED / settings.netns).exists()
