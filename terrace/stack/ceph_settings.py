"""The shape of a Ceph cluster for development and tests: its addresses, daemons and files."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from terrace.stack import files
from terrace.stack.errors import StackError

Store = Literal["memstore", "bluestore"]
STORES: tuple[Store, ...] = get_args(Store)

# ceph(8): the ports of the second and the first wire protocol
MON_PORTS = (3300, 6789)


@dataclass(frozen=True)
class CephSettings:
    """One cluster. `net`: the first three bytes of its addresses, all of which are loopback addresses.

    `store`: what the OSDs keep data in: `memstore` is their memory, which ends with them, `bluestore` sparse
    files of `osd_gib` each. The pool keeps a copy on each OSD, of three at most.
    """

    home: Path
    net: str
    store: Store = "memstore"
    mons: int = 3
    osds: int = 3
    pool: str = "libvirt-pool"
    osd_gib: int = 10

    @property
    def mon_daemons(self) -> tuple[str, ...]:
        return tuple(f"mon.{'abcde'[index]}" for index in range(self.mons))

    @property
    def osd_daemons(self) -> tuple[str, ...]:
        return tuple(f"osd.{index}" for index in range(self.osds))

    @property
    def daemons(self) -> tuple[str, ...]:
        """In the order in which they start."""
        return (*self.mon_daemons, "mgr.x", *self.osd_daemons)

    def address(self, daemon: str) -> str:
        match daemon.split("."):
            case ["mon", name]:
                return f"{self.net}.{10 + 'abcde'.index(name)}"
            case ["osd", number]:
                return f"{self.net}.{20 + int(number)}"
            case _:
                return f"{self.net}.19"

    def mon_addresses(self, daemon: str) -> str:
        """Both wire protocols of a mon, as Ceph writes an address vector."""
        version2, version1 = MON_PORTS
        address = self.address(daemon)
        return f"[v2:{address}:{version2},v1:{address}:{version1}]"

    @property
    def copies(self) -> int:
        return min(3, self.osds)

    @property
    def conf(self) -> Path:
        return self.home / "ceph.conf"

    @property
    def admin_keyring(self) -> Path:
        return self.home / "ceph.client.admin.keyring"

    @property
    def shape_file(self) -> Path:
        """What the cluster was made with; there from the first moment of its making on."""
        return self.home / "cluster.json"

    @property
    def made_mark(self) -> Path:
        """There when all files of the cluster are made."""
        return self.home / ".made"

    @property
    def pids(self) -> Path:
        return self.home / "run" / "pids"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def data(self, daemon: str) -> Path:
        return self.home / daemon

    def log_of(self, daemon: str) -> Path:
        return self.log / f"{daemon}.log"

    def output_of(self, daemon: str) -> Path:
        """What the daemon complained about since it was started last; its log has all of it, and more."""
        return self.log / f"{daemon}.out"

    def save(self) -> None:
        shape = dataclasses.asdict(self)
        del shape["home"]
        files.write(self.shape_file, json.dumps(shape, indent=2) + "\n")


def as_made(settings: CephSettings) -> CephSettings | None:
    """The settings of the cluster that lies in the home directory; None when there is none.

    Addresses and keys are built into a cluster's data, so its own settings hold whatever is asked for.
    """
    try:
        shape = json.loads(settings.shape_file.read_text())
        return CephSettings(home=settings.home, **shape)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise StackError(f"{settings.shape_file} can't be read: remove {settings.home}, whose data is lost.") from None


def net_of(port_base: int) -> str:
    """A loopback network of a stack's own."""
    return f"127.{port_base // 256}.{port_base % 256}"
