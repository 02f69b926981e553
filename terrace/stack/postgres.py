"""The stack's own PostgreSQL cluster."""

import os
import pwd
import shutil
from pathlib import Path
from urllib.parse import quote

from terrace.stack import commands, files
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.member import Member, Probe
from terrace.stack.settings import StackSettings

OWNER, READER, WRITER = "terrace_owner", "terrace_reader", "terrace_writer"
DATABASE = "terrace"
USER = "postgres"  # made by Debian's package; initdb wants an id that has a name

CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
dynamic_shared_memory_type = posix
wal_level = replica
max_wal_size = 512MB
min_wal_size = 80MB
checkpoint_completion_target = 0.9
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, ymd'
lc_messages = 'C'
log_line_prefix = '%m [%p] %u '
log_statement = none
log_min_duration_statement = 1s
log_parameter_max_length = 0
"""
ACCESS = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


def password_file(layout: Layout, role: str) -> Path:
    return layout.secrets / f"{role}.password"


def binaries() -> Path:
    """Directory of the newest installed PostgreSQL's programs (Debian keeps versions side by side)."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise StackError("PostgreSQL is not installed; scripts/up installs it.")
    return max(found, key=lambda path: [int(part) for part in path.parent.name.split(".")])


def as_ordinary_user(layout: Layout) -> tuple[str, ...]:
    """A command's prefix under which PostgreSQL, which refuses root, may run on files under `var`."""
    if os.geteuid() != 0:
        return ()
    user = pwd.getpwnam(USER)
    # an ordinary id inside a user namespace: outside of it, files and processes still are root's
    namespace = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    if commands.succeeds(*namespace, "true"):
        return namespace
    prefix = ("setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--")
    if not commands.succeeds(*prefix, "test", "-x", str(layout.var)):
        raise StackError(
            f"This machine has no user namespaces and its user postgres can't enter {layout.var}: "
            "set TERRACE_VAR to a directory that every user can reach."
        )
    return prefix


def prepare(settings: StackSettings) -> None:
    """Makes passwords, and the cluster with its one database, unless they are there."""
    layout = settings.layout
    for role in (OWNER, READER, WRITER):
        files.ensure_secret(password_file(layout, role))
    if not (layout.cluster / "PG_VERSION").exists() or not (layout.cluster / ".made").exists():
        _make_cluster(layout)
    sockets = str(layout.sockets).replace("'", "''")
    _write(layout, "postgresql.auto.conf", "")
    _write(layout, "postgresql.conf", CONFIGURATION.format(port=settings.ports.postgres, sockets=sockets))
    _write(layout, "pg_hba.conf", ACCESS)


def _make_cluster(layout: Layout) -> None:
    prefix = as_ordinary_user(layout)
    shutil.rmtree(layout.cluster, ignore_errors=True)  # half made by an interrupted start
    layout.cluster.mkdir(mode=0o700, parents=True)
    _give_to_postgres(layout.cluster, prefix)
    password = password_file(layout, OWNER).read_text()  # hexadecimal digits: nothing to quote
    initdb = (str(binaries() / "initdb"), "--pgdata", str(layout.cluster), "--username", OWNER)
    # nobody can connect before the server's own access rules and the password are in place
    options = ("--auth=reject", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions")
    commands.run(*prefix, *initdb, *options)
    single = (str(binaries() / "postgres"), "--single", "-D", str(layout.cluster), "postgres")
    statements = f"alter role {OWNER} password '{password}'\ncreate database {DATABASE}\n"
    commands.run(*prefix, *single, "-c", "password_encryption=scram-sha-256", input=statements)
    _write(layout, ".made", "")


def _write(layout: Layout, name: str, text: str) -> None:
    path = layout.cluster / name
    files.write(path, text, 0o600)
    owner = layout.cluster.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def _give_to_postgres(path: Path, prefix: tuple[str, ...]) -> None:
    if prefix[:1] == ("setpriv",):
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def member(settings: StackSettings) -> Member:
    layout = settings.layout
    server = (str(binaries() / "postgres"), "-D", str(layout.cluster))
    is_ready = (
        str(binaries() / "pg_isready"),
        "-q",
        "-h",
        str(layout.sockets),
        "-p",
        str(settings.ports.postgres),
    )
    return Member(
        name="postgres",
        command=(*as_ordinary_user(layout), *server),
        env=commands.member_environment(),
        ready=(
            Probe("unix", str(layout.sockets / f".s.PGSQL.{settings.ports.postgres}")),
            Probe("command", is_ready),
        ),
        ports=(settings.ports.postgres,),
        stop_signal="SIGINT",  # "fast shutdown": clients are disconnected, data is safe
        stop_timeout_s=15.0,
        start_timeout_s=60.0,
        revision=files.revision([layout.cluster / "postgresql.conf", layout.cluster / "pg_hba.conf"]),
    )


def url(settings: StackSettings, role: str) -> str:
    """Where the services find the database; through its socket, which is cheaper than TCP."""
    host = quote(str(settings.layout.sockets), safe="")
    return f"postgresql://{role}@/{DATABASE}?host={host}&port={settings.ports.postgres}"
