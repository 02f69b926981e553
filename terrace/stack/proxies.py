"""The two HAProxy processes, rendered from the templates that every way of deploying shares."""

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrace.stack import commands, files
from terrace.stack.member import Member, Probe
from terrace.stack.settings import StackSettings

TEMPLATES = Path(__file__).parent.parent.parent / "haproxy"


@dataclass(frozen=True)
class Server:
    """One node behind a proxy. `agent_port`: where it tells its weight (internal nodes only)."""

    name: str
    address: str
    port: int
    agent_port: int | None = None


def render(template: str, **variables: Any) -> str:
    """Text of a configuration from `public.cfg.j2` or `internal.cfg.j2`; a missing variable is an error."""
    import jinja2  # not at the top: a stack must come down without its virtual environment

    loader = jinja2.FileSystemLoader(TEMPLATES)
    # as Ansible's template module does it; configuration, not HTML: nothing to escape, every value is ours
    environment = jinja2.Environment(  # noqa: S701
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(template).render(**variables)


def prepare(settings: StackSettings) -> None:
    """Writes both configurations and lets HAProxy check them."""
    ports, layout = settings.ports, settings.layout
    external = [Server(name, "127.0.0.1", ports.external_node(i)) for i, name in enumerate(settings.externals)]
    internal = [
        Server(name, "127.0.0.1", ports.internal_node(i), ports.agent(i)) for i, name in enumerate(settings.hypervisors)
    ]
    _write(settings, "public", f"{settings.public_bind}:{ports.public}", ports.public_metrics, external)
    _write(settings, "internal", f"127.0.0.1:{ports.internal}", ports.internal_metrics, internal)
    for tier in ("public", "internal"):
        commands.run("haproxy", "-c", "-f", str(layout.config / f"haproxy-{tier}.cfg"))


def _write(settings: StackSettings, tier: str, bind: str, metrics_port: int, nodes: Sequence[Server]) -> None:
    text = render(
        f"{tier}.cfg.j2",
        bind=bind,
        metrics_bind=f"127.0.0.1:{metrics_port}",
        nodes=nodes,
        stats_socket=settings.layout.sockets / f"haproxy-{tier}",
        user="haproxy" if os.geteuid() == 0 and _user_exists("haproxy") else "",
    )
    files.write(settings.layout.config / f"haproxy-{tier}.cfg", text)


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def members(settings: StackSettings) -> list[Member]:
    ports = settings.ports
    return [
        _member(settings, "internal", (ports.internal, ports.internal_metrics), "127.0.0.1"),
        _member(settings, "public", (ports.public, ports.public_metrics), settings.public_bind),
    ]


def _member(settings: StackSettings, tier: str, ports: tuple[int, int], address: str) -> Member:
    path = settings.layout.config / f"haproxy-{tier}.cfg"
    reachable = "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104
    return Member(
        name=f"haproxy-{tier}",
        # -db: in the foreground; -q: its log says the same as its messages
        command=("haproxy", "-db", "-q", "-f", str(path)),
        env=commands.member_environment(),
        ready=(Probe("tcp", f"{reachable}:{ports[0]}"),),
        ports=ports,
        stop_timeout_s=2.0,
        revision=files.revision([path]),
    )
