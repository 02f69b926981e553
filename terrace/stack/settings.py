"""The settings of a local stack: defaults, then what this stack was made with, then the environment."""

import dataclasses
import ipaddress
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrace.stack import setting_values as read
from terrace.stack.ceph_settings import Store
from terrace.stack.errors import SettingsError
from terrace.stack.layout import Layout
from terrace.stack.ports import Ports

READERS: dict[str, Callable[[str, str], Any]] = {
    # hypervisors' console ports start 1000 above, migration ports 3000 above (libvirt wants them above 5900)
    "port_base": read.whole(5000, 60000),
    "public_bind": read.ipv4,
    "bridge": read.interface,
    "subnet": read.subnet,
    "dns": read.ipv4_list,
    "netns": read.namespace,
    "profile": read.one_of("qemu", "test", "fake"),
    "storage": read.one_of("dir", "rbd"),
    "ceph_store": read.one_of("bluestore", "memstore"),
    "nodes": read.whole(1, 10),
    "external_nodes": read.whole(1, 10),
    "domain_type": read.one_of("auto", "kvm", "qemu"),
    "node_cpu": read.whole(1, 4096),
    "node_ram_mib": read.whole(128, 64 * 1024 * 1024),
    "node_disk_gib": read.whole(1, 1024 * 1024),
    "cpu_overcommit": read.ratio,
    "ram_overcommit": read.ratio,
    "disk_overcommit": read.ratio,
    "log_level": read.one_of("debug", "info", "warning", "error"),
}
DEFAULT_SUBNET = ipaddress.IPv4Network("10.77.0.0/16")
# the stored data speaks of these, so they can change only together with it
TIED_TO_DATA = ("profile", "bridge", "subnet", "storage")


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """One stack. `None` capacities are detected when the stack starts and kept from then on.

    `profile`: `qemu` runs real guests; `test` uses libvirt's test driver, which has no guests and no network;
    `fake` has a hypervisor of files only. `storage`: where disks lie: `rbd` is a Ceph cluster that all nodes
    share, which keeps them as `ceph_store` says; `dir` is a directory of each node with profile `qemu`, and
    with the other profiles storage that only pretends.
    Each field is read from TERRACE_<NAME>.
    """

    checkout: Path
    var: Path
    port_base: int = 7700
    public_bind: str = "127.0.0.1"
    bridge: str = "terrace0"
    subnet: ipaddress.IPv4Network = DEFAULT_SUBNET
    dns: tuple[str, ...] = ()
    netns: str = ""
    profile: str = "qemu"
    storage: str = "dir"
    ceph_store: Store = "bluestore"
    nodes: int = 2
    external_nodes: int = 2
    domain_type: str = "auto"
    node_cpu: int | None = None
    node_ram_mib: int | None = None
    node_disk_gib: int | None = None
    cpu_overcommit: float = 4.0
    ram_overcommit: float = 1.0
    disk_overcommit: float = 2.0
    log_level: str = "info"

    @classmethod
    def load(cls, checkout: Path, environ: Mapping[str, str] | None = None) -> "StackSettings":
        """Raises SettingsError with one sentence for the first value that can't be used."""
        environ = os.environ if environ is None else environ
        checkout = checkout.resolve()
        var_text = environ.get("TERRACE_VAR", "")
        var = read.directory("TERRACE_VAR", var_text) if var_text else checkout / "var"
        kept = cls(checkout=checkout, var=var)._with(_read_file(Layout(var).settings_file))
        chosen = kept._with({name: environ[key] for name in READERS if (key := f"TERRACE_{name.upper()}") in environ})
        if chosen.storage != "dir" and chosen.profile == "fake":
            raise SettingsError("TERRACE_STORAGE is only for TERRACE_PROFILE=qemu or test: fake has fake disks.")
        if Layout(var).cluster.exists():
            chosen._refuse_other_data(kept)
        return chosen

    def _with(self, texts: Mapping[str, str]) -> "StackSettings":
        values = {name: READERS[name](f"TERRACE_{name.upper()}", text.strip()) for name, text in texts.items()}
        return dataclasses.replace(self, **values)

    def _refuse_other_data(self, kept: "StackSettings") -> None:
        for name in TIED_TO_DATA:
            before, now = getattr(kept, name), getattr(self, name)
            if before != now:
                raise SettingsError(
                    f"TERRACE_{name.upper()} is {before} in the stack under {self.var}, "
                    f"and its data depends on it: run scripts/down --purge before changing it to {now}."
                )

    def save(self) -> None:
        """Keeps what differs from the defaults, so that later commands agree without the environment."""
        plain = StackSettings(checkout=self.checkout, var=self.var)
        lines = ["# what this stack was started with; the environment overrides it"]
        for name in READERS:
            value = getattr(self, name)
            if value != getattr(plain, name):
                text = " ".join(value) if isinstance(value, tuple) else str(value)
                lines.append(f"TERRACE_{name.upper()}={shlex.quote(text)}")
        self.layout.settings_file.write_text("\n".join(lines) + "\n")

    @property
    def layout(self) -> Layout:
        return Layout(self.var)

    @property
    def gateway(self) -> str:
        """The bridge's own address: the subnet's first."""
        return str(self.subnet[1])

    @property
    def hypervisors(self) -> tuple[str, ...]:
        """Names of the nodes that run guests."""
        return tuple(f"hv{number}" for number in range(1, self.nodes + 1))

    @property
    def externals(self) -> tuple[str, ...]:
        return tuple(f"ext{number}" for number in range(1, self.external_nodes + 1))

    @property
    def ports(self) -> Ports:
        return Ports(self.port_base)


def _read_file(path: Path) -> dict[str, str]:
    """Settings kept by an earlier start: NAME=value lines, quoted as a shell would."""
    if not path.exists():
        return {}
    pairs = (word.partition("=") for word in shlex.split(path.read_text(), comments=True))
    found = {key.removeprefix("TERRACE_").lower(): value for key, _, value in pairs}
    return {name: value for name, value in found.items() if name in READERS}
