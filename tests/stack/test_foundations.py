"""The members below Terrace's own code, for real: PostgreSQL, Redis, HAProxy and two hypervisors."""

import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_members import eventually

from terrace.stack import commands, conflicts, guests, hypervisor, machine, plan, postgres, process_record, stop
from terrace.stack.control import Control, start_supervisor
from terrace.stack.errors import StackError
from terrace.stack.follow import apply_and_follow
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OURS = ("migrate", "bootstrap", "internal", "external")

GUEST = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
</domain>
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackSettings]:
    var = tmp_path_factory.mktemp("stack") / "var"
    var.mkdir()
    settings = machine.with_capacity(StackSettings.load(CHECKOUT, {"TERRACE_VAR": str(var)}))
    start(settings)
    yield settings
    stop.stop_all(settings, Progress.silent())


def start(settings: StackSettings) -> Control:
    layout = settings.layout
    for directory in (layout.run, layout.log):
        directory.mkdir(exist_ok=True)
    layout.make_sockets()
    plan.prepare(settings)
    members = [member for member in plan.members(settings) if not member.name.startswith(OURS)]
    control = Control(layout.control_socket)
    if not control.is_running():
        control = start_supervisor(layout)
    apply_and_follow(layout, control, members, Progress.silent())
    return control


@pytest.fixture
def control(stack: StackSettings) -> Control:
    return start(stack)


def sql(settings: StackSettings, statement: str) -> str:
    url = postgres.url(settings, postgres.OWNER)
    password = postgres.password_file(settings.layout, postgres.OWNER).read_text()
    return commands.run("psql", "-w", "-tA", url, "-c", statement, env={"PGPASSWORD": password}).strip()


def virsh(settings: StackSettings, node: str, *words: str) -> str:
    return commands.run("virsh", "-q", "-c", hypervisor.uri(settings.layout, node), *words).strip()


def qemu_of(settings: StackSettings, node: str, name: str) -> int:
    return int((settings.layout.node(node) / "run" / "libvirt" / "qemu" / f"{name}.pid").read_text())


def run_guest(settings: StackSettings, node: str, name: str, tmp_path: Path) -> int:
    xml = tmp_path / f"{name}.xml"
    xml.write_text(GUEST.format(name=name))
    virsh(settings, node, "create", str(xml))
    return qemu_of(settings, node, name)


def test_postgres_asks_for_the_password(stack: StackSettings, control: Control) -> None:
    assert sql(stack, "select current_user, current_database()") == "terrace_owner|terrace"
    with pytest.raises(StackError) as caught:
        commands.run("psql", "-w", postgres.url(stack, postgres.OWNER), "-c", "select 1")
    assert "no password supplied" in caught.value.details


def test_data_survives_a_killed_postgres(stack: StackSettings, control: Control) -> None:
    sql(stack, "create table kept as select 42 as answer")
    control.kill("postgres")
    control.wait("postgres", timeout_s=20)
    assert sql(stack, "select answer from kept") == "42"


def test_redis_asks_for_the_password(stack: StackSettings, control: Control) -> None:
    with socket.create_connection(("127.0.0.1", stack.ports.redis)) as connection:
        connection.sendall(b"GET x\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_secrets_are_in_no_command_line(stack: StackSettings, control: Control) -> None:
    secrets = [path.read_bytes() for path in stack.layout.secrets.iterdir()]
    for member in control.status():
        words = Path(f"/proc/{member.pid}/cmdline").read_bytes()
        assert not any(secret in words for secret in secrets)


def test_each_hypervisor_is_a_machine_of_its_own(stack: StackSettings, control: Control) -> None:
    assert [virsh(stack, node, "hostname") for node in stack.hypervisors] == ["hv1.terrace", "hv2.terrace"]
    uuids = {(stack.layout.node(node) / "host_uuid").read_text() for node in stack.hypervisors}
    assert len(uuids) == 2
    for node in stack.hypervisors:
        assert (stack.layout.node(node) / "host_uuid").read_text() in virsh(stack, node, "capabilities")


def test_guests_survive_their_libvirtd(stack: StackSettings, control: Control, tmp_path: Path) -> None:
    pid = run_guest(stack, "hv1", "survivor", tmp_path)
    control.kill("hv1")
    control.wait("hv1", timeout_s=20)
    control.restart("hv1")
    control.wait("hv1", timeout_s=20)
    assert virsh(stack, "hv1", "list", "--name") == "survivor"
    assert qemu_of(stack, "hv1", "survivor") == pid
    started = time.monotonic()
    virsh(stack, "hv1", "destroy", "survivor")
    assert time.monotonic() - started < 1.5, "the supervisor must reap guests at once"
    assert process_record.process_id(pid) is None


def test_a_paused_guest_does_not_hold_up_the_end(stack: StackSettings, control: Control, tmp_path: Path) -> None:
    pids = [run_guest(stack, node, "paused", tmp_path) for node in stack.hypervisors]
    for node in stack.hypervisors:
        virsh(stack, node, "suspend", "paused")
    started = time.monotonic()
    assert guests.shut_down(stack) == 2
    assert time.monotonic() - started < 4
    assert all(process_record.process_id(pid) is None for pid in pids)


def test_a_half_broken_stack_comes_down(stack: StackSettings, control: Control, tmp_path: Path) -> None:
    """Supervisor and one libvirtd are dead, a guest of it runs on."""
    guest = run_guest(stack, "hv2", "orphan", tmp_path)
    records = process_record.living(stack.layout.pids)
    for name in ("supervisor", "hv2"):
        os.kill(records[name].pid, signal.SIGKILL)
        eventually(lambda name=name: not records[name].is_alive())  # type: ignore[misc]
    stop.stop_all(stack, Progress.silent())
    assert not any(process.is_alive() for process in records.values())
    assert process_record.process_id(guest) is None
    stop.stop_all(stack, Progress.silent())


def test_a_start_after_a_dead_supervisor(stack: StackSettings, control: Control, tmp_path: Path) -> None:
    guest = run_guest(stack, "hv1", "kept", tmp_path)
    records = process_record.living(stack.layout.pids)
    os.kill(records["supervisor"].pid, signal.SIGKILL)
    eventually(lambda: not records["supervisor"].is_alive())
    stop.end_leftovers(stack.layout)
    start(stack)
    assert virsh(stack, "hv1", "list", "--name") == "kept"
    assert qemu_of(stack, "hv1", "kept") == guest
    virsh(stack, "hv1", "destroy", "kept")


def test_a_taken_port_is_told(stack: StackSettings, control: Control) -> None:
    members = [member for member in plan.members(stack) if member.name == "internal1"]
    conflicts.refuse_ports(stack, members)
    with socket.create_server(("127.0.0.1", stack.ports.internal_node(0))), pytest.raises(StackError) as caught:
        conflicts.refuse_ports(stack, members)
    assert str(stack.ports.internal_node(0)) in str(caught.value)
    assert "TERRACE_PORT_BASE" in str(caught.value)


def test_an_address_of_another_machine_is_told(stack: StackSettings) -> None:
    elsewhere = dataclasses.replace(stack, public_bind="192.0.2.1")
    with pytest.raises(StackError, match=r"TERRACE_PUBLIC_BIND is 192\.0\.2\.1, which is not an address"):
        conflicts.refuse_ports(elsewhere, [])


def test_preparing_again_changes_nothing(stack: StackSettings, control: Control) -> None:
    before = plan.members(stack)
    plan.prepare(stack)
    assert plan.members(stack) == before


def test_a_stack_comes_down_without_its_virtual_environment(stack: StackSettings) -> None:
    """The standard library is enough for everything but a start."""
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import terrace.stack.__main__"
    subprocess.run(["/usr/bin/python3", "-I", "-c", code], check=True)
