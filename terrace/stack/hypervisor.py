"""The hypervisors: one private libvirtd for each node, in mount and UTS namespaces of its own."""

import os
import shutil
import uuid
from pathlib import Path
from urllib.parse import quote

from terrace.stack import commands, files, process_record
from terrace.stack.layout import Layout
from terrace.stack.member import Member, Probe
from terrace.stack.settings import StackSettings

# /sys shows the network namespace in which it was mounted, which need not be ours; there is one sysfs for each.
# libvirtd's directories are fixed in its binary, so it gets a view of the file system in which they are
# the node's own. The host's name has a dot because libvirt asks DNS about names without one.
ENTER = """\
set -eu
node=$1 cache=$2 name=$3
mount -t sysfs sysfs "$node/run"
if [ "$(stat -c %d "$node/run")" != "$(stat -c %d /sys)" ]; then
    umount --lazy /sys
    mount --bind "$node/run" /sys
fi
umount "$node/run"
for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt run:/run; do
    mkdir -p "${pair#*:}"
done
mkdir -p /var/cache/libvirt
hostname "$name.terrace"
mount --bind "$cache" /var/cache/libvirt
for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt run:/run; do
    mount --bind "$node/${pair%%:*}" "${pair#*:}"
done
exec libvirtd
"""

LIBVIRTD = """\
host_uuid = "{host_uuid}"
unix_sock_dir = "{sockets}"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 0
max_clients = 500
max_workers = 16
log_level = 3
"""
# guests are root's here as everything is; on real hosts the distribution's confinement stays as it is
QEMU = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
vnc_listen = "127.0.0.1"
remote_display_port_min = {vnc}
remote_display_port_max = {vnc_end}
remote_websocket_port_min = {websocket}
remote_websocket_port_max = {websocket_end}
migration_port_min = {migration}
migration_port_max = {migration_end}
"""


def sockets(layout: Layout, name: str) -> Path:
    return layout.sockets / name


def uri(layout: Layout, name: str) -> str:
    return f"qemu+unix:///system?socket={quote(str(sockets(layout, name) / 'libvirt-sock'))}"


def prepare(settings: StackSettings) -> None:
    """Writes every node's configuration and makes its directories."""
    layout = settings.layout
    _warm_cache(settings)
    for index, name in enumerate(settings.hypervisors):
        node = layout.node(name)
        for part in ("etc/qemu", "lib", "log", "run"):
            (node / part).mkdir(parents=True, exist_ok=True)
        sockets(layout, name).mkdir(mode=0o700, exist_ok=True)
        _forget_last_boot(node / "run")
        (node / "run" / "lock").mkdir(exist_ok=True)
        host_uuid = node / "host_uuid"
        if not host_uuid.exists():
            files.write(host_uuid, str(uuid.uuid4()))
        text = LIBVIRTD.format(host_uuid=host_uuid.read_text(), sockets=sockets(layout, name))
        files.write(node / "etc" / "libvirtd.conf", text)
        files.write(node / "etc" / "qemu.conf", _qemu(settings.port_base + 100 * index))


def _qemu(base: int) -> str:
    starts = {"vnc": base + 1000, "websocket": base + 2000, "migration": base + 3000}
    return QEMU.format(**starts, **{f"{name}_end": start + 99 for name, start in starts.items()})


def _forget_last_boot(run: Path) -> None:
    """A real /run is empty after a boot: libvirt's marks of what already started depend on it."""
    boot = process_record.BOOT_ID.read_text().strip()
    mark = run / "boot-id"
    if not mark.exists() or mark.read_text() != boot:
        shutil.rmtree(run)
        run.mkdir()
        mark.write_text(boot)


def _warm_cache(settings: StackSettings) -> None:
    """Takes over what another libvirtd found out about QEMU; libvirt checks by itself that it still holds."""
    mine = settings.layout.capability_cache
    if (mine / "qemu" / "capabilities").exists():
        return
    mine.mkdir(parents=True, exist_ok=True)
    for other in (Layout(settings.checkout / "var").capability_cache, Path("/var/cache/libvirt")):
        if any((other / "qemu" / "capabilities").glob("*.xml")):
            shutil.copytree(other / "qemu" / "capabilities", mine / "qemu" / "capabilities")
            return


def members(settings: StackSettings) -> list[Member]:
    """The others wait for the first, whose readiness fills the cache that all share."""
    first = settings.hypervisors[0]
    return [_member(settings, name, () if name == first else (first,)) for name in settings.hypervisors]


def _member(settings: StackSettings, name: str, needs: tuple[str, ...]) -> Member:
    layout = settings.layout
    node = layout.node(name)
    enter = ("/bin/sh", "-c", ENTER, "enter", str(node), str(layout.capability_cache), name)
    capabilities = ("virsh", "-q", "-c", uri(layout, name), "domcapabilities")
    return Member(
        name=name,
        command=("unshare", "--mount", "--uts", "--propagation", "private", "--", *enter),
        env=commands.member_environment(),
        needs=needs,
        ready=(
            Probe("unix", str(sockets(layout, name) / "libvirt-sock")),
            Probe("command", capabilities, timeout_s=60.0),
        ),
        stop_timeout_s=10.0,
        start_timeout_s=90.0,
        kills_group=False,
        revision=files.revision([node / "etc" / "libvirtd.conf", node / "etc" / "qemu.conf"]),
    )


def is_process_of(pid: int, node: Path) -> bool:
    """Whether a process (libvirtd, a guest) has the node's own /var/lib/libvirt for its view."""
    try:
        return os.path.samestat(Path(f"/proc/{pid}/root/var/lib/libvirt").stat(), (node / "lib").stat())
    except OSError:
        return False
