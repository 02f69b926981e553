"""The members made of Terrace's own code: migrations, bootstrap, both API tiers."""

import sys
from pathlib import Path

from terrace.stack import ceph_stack, commands, files, hypervisor, machine, postgres, redis
from terrace.stack.member import Member, Probe
from terrace.stack.settings import StackSettings

HERE = "127.0.0.1"


def prepare(settings: StackSettings) -> None:
    layout = settings.layout
    files.ensure_secret(layout.secrets / "tier_secret")
    for name in settings.hypervisors:
        for directory in ("state", "pool", "console", "fake"):
            (layout.node(name) / directory).mkdir(parents=True, exist_ok=True)


def members(settings: StackSettings) -> list[Member]:
    code = _code_revision(settings.checkout)
    return [
        _migrate(settings, code),
        _bootstrap(settings, code),
        *(_internal(settings, index, code) for index in range(settings.nodes)),
        *(_external(settings, index, code) for index in range(settings.external_nodes)),
    ]


def public_url(settings: StackSettings) -> str:
    address = settings.public_bind
    if address == "0.0.0.0":  # noqa: S104 - compared, not bound
        address = machine.main_address() or HERE
    return f"http://{address}:{settings.ports.public}"


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _environment(settings: StackSettings, role: str, **extra: object) -> dict[str, str]:
    layout = settings.layout
    texts = {f"TERRACE_{name}": str(value) for name, value in extra.items()}
    return commands.member_environment(
        PYTHONPATH=str(settings.checkout),
        PYTHONUNBUFFERED="1",
        TERRACE_DATABASE_URL=postgres.url(settings, role),
        TERRACE_DATABASE_PASSWORD_FILE=str(postgres.password_file(layout, role)),
        **texts,
    )


def _migrate(settings: StackSettings, code: str) -> Member:
    passwords = {
        "READER_PASSWORD_FILE": postgres.password_file(settings.layout, postgres.READER),
        "WRITER_PASSWORD_FILE": postgres.password_file(settings.layout, postgres.WRITER),
    }
    return Member(
        name="migrate",
        command=_python("terrace.cli.main", "admin", "migrate"),
        env=_environment(settings, postgres.OWNER, **passwords),
        needs=("postgres",),
        once=True,
        revision=code,
    )


def _bootstrap(settings: StackSettings, code: str) -> Member:
    network = ["--network", "default", "--bridge", settings.bridge, "--subnet", str(settings.subnet)]
    network += ["--gateway", settings.gateway]
    for server in settings.dns or machine.name_servers():
        network += ["--dns", server]
    token = ["--token-file", str(settings.layout.token_file)]
    return Member(
        name="bootstrap",
        command=_python("terrace.cli.main", "admin", "bootstrap", "--project", "default", *network, *token),
        env=_environment(settings, postgres.OWNER),
        needs=("migrate",),
        once=True,
        revision=code,
    )


def _api(settings: StackSettings, role: str, node: str, port: int, **extra: object) -> dict[str, str]:
    return _environment(
        settings,
        role,
        NODE_NAME=node,
        HOST=HERE,
        PORT=port,
        REDIS_URL=redis.url(settings),
        TIER_SECRET_FILE=settings.layout.secrets / "tier_secret",
        LOG_FORMAT="json",
        LOG_LEVEL=settings.log_level,
        **extra,
    )


def _internal(settings: StackSettings, index: int, code: str) -> Member:
    name, port = settings.hypervisors[index], settings.ports.internal_node(index)
    home = settings.layout.node(name)
    capacity = {
        "CPU": settings.node_cpu,
        "RAM_MIB": settings.node_ram_mib,
        "DISK_GIB": settings.node_disk_gib,
        "CPU_OVERCOMMIT": settings.cpu_overcommit,
        "RAM_OVERCOMMIT": settings.ram_overcommit,
        "DISK_OVERCOMMIT": settings.disk_overcommit,
    }
    places = {
        "STATE_DIR": home / "state",
        "POOL_DIR": home / "pool",
        "CONSOLE_LOG_DIR": home / "console",
        "FAKE_DIR": home / "fake",
    }
    return Member(
        name=f"internal{index + 1}",
        command=_python("internal_api"),
        env=_api(
            settings,
            postgres.WRITER,
            name,
            port,
            NODE_URL=f"http://{HERE}:{port}",
            AGENT_PORT=settings.ports.agent(index),
            DOMAIN_TYPE=settings.domain_type,
            **_drivers(settings, name),
            **{name: value for name, value in capacity.items() if value is not None},
            **places,
        ),
        needs=("migrate", "redis", *((name,) if settings.profile == "qemu" else ())),
        ready=(Probe("http", f"http://{HERE}:{port}/readyz"),),
        ports=(port, settings.ports.agent(index)),
        stop_timeout_s=10.0,
        revision=code,
    )


def _drivers(settings: StackSettings, node: str) -> dict[str, str]:
    real = settings.profile == "qemu"
    disks = ceph_stack.environment(settings) if settings.storage == "rbd" else {"STORAGE": "dir" if real else "fake"}
    if settings.profile == "fake":
        return {"HYPERVISOR": "fake", "NETWORK": "none", **disks}
    uri = hypervisor.uri(settings.layout, node) if real else "test:///default"
    return {"HYPERVISOR": "libvirt", "LIBVIRT_URI": uri, "NETWORK": "bridge" if real else "none", **disks}


def _external(settings: StackSettings, index: int, code: str) -> Member:
    port = settings.ports.external_node(index)
    internal = f"http://{HERE}:{settings.ports.internal}"
    return Member(
        name=f"external{index + 1}",
        command=_python("external_api"),
        env=_api(
            settings,
            postgres.READER,
            settings.externals[index],
            port,
            INTERNAL_URL=internal,
            PUBLIC_URL=public_url(settings),
        ),
        needs=("migrate", "redis"),
        ready=(Probe("http", f"http://{HERE}:{port}/readyz"),),
        ports=(port,),
        stop_timeout_s=10.0,
        revision=code,
    )


def _code_revision(checkout: Path) -> str:
    """Changes with the code and its dependencies, so that `up` after an update restarts the services."""
    packages = ("terrace", "internal_api", "external_api")
    sources = [
        path for package in packages for path in (checkout / package).rglob("*") if path.suffix in (".py", ".sql")
    ]
    stack = checkout / "terrace" / "stack"
    locks = (checkout / "requirements").glob("*.lock")
    return files.revision([path for path in sources if stack not in path.parents] + list(locks))
