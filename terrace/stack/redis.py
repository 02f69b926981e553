"""The stack's own Redis. It keeps nothing on disk: losing it loses nothing."""

from terrace.stack import commands, files
from terrace.stack.member import Member, Probe
from terrace.stack.settings import StackSettings

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
save ""
appendonly no
daemonize no
maxmemory 128mb
maxmemory-policy allkeys-lru
"""


def prepare(settings: StackSettings) -> None:
    layout = settings.layout
    password = files.ensure_secret(layout.secrets / "redis.password")
    directory = '"' + str(layout.run).replace("\\", "\\\\").replace('"', '\\"') + '"'
    text = CONFIGURATION.format(port=settings.ports.redis, password=password, directory=directory)
    files.write(layout.config / "redis.conf", text, 0o600)


def member(settings: StackSettings) -> Member:
    path = settings.layout.config / "redis.conf"
    return Member(
        name="redis",
        command=("redis-server", str(path)),
        env=commands.member_environment(),
        ready=(Probe("tcp", f"127.0.0.1:{settings.ports.redis}"),),
        ports=(settings.ports.redis,),
        revision=files.revision([path]),
    )


def url(settings: StackSettings) -> str:
    """Holds the password: it goes to the services by their environment only."""
    password = (settings.layout.secrets / "redis.password").read_text()
    return f"redis://:{password}@127.0.0.1:{settings.ports.redis}/0"
