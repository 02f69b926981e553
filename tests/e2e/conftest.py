"""One stack with real guests for the whole session; all guests boot at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest_login import Fleet
from public_client import Api, Json
from stack_run import StackRun, processes_of
from surroundings import THERE, OfficeDhcp, Outside

from terrace.stack import ceph_stack, commands
from terrace.stack.ceph_cluster import CephCluster
from terrace.stack.log_files import tail

# Changes that make the guest agent and the power button's listener deaf for good.
DEAF = """\
#!/bin/sh
printf '#!/bin/sh\\nexec sleep 1000000\\n' >/usr/lib/tiny/guest-agent
printf '#!/bin/sh\\n' >/etc/acpi/PWRF/00000080
killall qemu-ga
"""
ONCE = "#!/bin/sh\necho ran >>/root/ran\nid -u >/root/by\n"
# what each test file works with; created together, as booting them one after the other takes minutes
GUESTS: dict[str, dict[str, Any]] = {
    "deaf": {"user_data": DEAF},
    "self": {"user_data": ONCE},
    "left": {"labels": {"side": "left"}},
    "right": {"labels": {"side": "right"}},
}


_started = pytest.StashKey[StackRun]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the nodes said last."""
    report = yield
    run = item.session.stash.get(_started, None)
    if report.failed and run is not None and run.layout.log.is_dir():
        for log in sorted(run.layout.log.glob("internal*.log")):
            lines = [line[:400] for line in tail(log, 15).splitlines()]
            report.sections.append((f"the end of {log.name}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
def image() -> Path:
    if "TERRACE_TEST_IMAGE" not in os.environ:
        pytest.skip("scripts/test builds the guest image that this needs")
    return Path(os.environ["TERRACE_TEST_IMAGE"])


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Everything of this session; short, as paths of sockets have to be."""
    assert commands.run_json("ip", "-j", "route", "show", "default") == [], "run these with scripts/test"
    made = Path(tempfile.mkdtemp(prefix="te-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def outside(folder: Path) -> Iterator[Outside]:
    (folder / "outside").mkdir()
    world = Outside(folder / "outside")
    world.start_all()
    yield world
    world.stop()


@pytest.fixture(scope="session")
def office(folder: Path) -> Iterator[OfficeDhcp]:
    (folder / "office").mkdir()
    lan = OfficeDhcp(folder / "office")
    lan.start_all()
    yield lan
    lan.stop()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, folder: Path, image: Path, outside: Outside) -> Iterator[StackRun]:
    """A running stack; nothing of it may be left when it has been taken down."""
    run = StackRun(
        {
            "TERRACE_VAR": str(folder / "var"),
            "TERRACE_PORT_BASE": "17700",
            "TERRACE_BRIDGE": "e2e0",
            "TERRACE_SUBNET": "10.87.0.0/16",
            "TERRACE_DNS": THERE,
            "TERRACE_DOMAIN_TYPE": "qemu",
            "TERRACE_NODE_CPU": "4",
            "TERRACE_NODE_RAM_MIB": "4096",
            "TERRACE_NODE_DISK_GIB": "200",
        }
    )
    request.session.stash[_started] = run
    with _up(run, image):
        yield run


@pytest.fixture(scope="session")
def rbd_stack(folder: Path, image: Path) -> Iterator[StackRun]:
    """Another one, beside it, whose disks lie on a Ceph cluster of its own."""
    run = StackRun(
        {
            "TERRACE_VAR": str(folder / "rbd"),
            "TERRACE_PORT_BASE": "27700",
            "TERRACE_BRIDGE": "rbd0",
            "TERRACE_SUBNET": "10.89.0.0/16",
            "TERRACE_DNS": THERE,
            "TERRACE_DOMAIN_TYPE": "qemu",
            "TERRACE_NODE_CPU": "4",
            "TERRACE_NODE_RAM_MIB": "4096",
            "TERRACE_NODE_DISK_GIB": "200",
            "TERRACE_STORAGE": "rbd",
            "TERRACE_CEPH_STORE": "memstore",
        }
    )
    with _up(run, image):
        yield run


@contextmanager
def _up(run: StackRun, image: Path) -> Iterator[None]:
    before = _traces()
    try:
        run.up(image)
        yield
    finally:
        down = run.command("down", "--purge")
    assert down.returncode == 0, down.stderr
    assert not run.layout.var.exists(), sorted(run.layout.var.rglob("*"))
    assert processes_of(run.layout.var) == []
    after = _traces()
    assert {name: after[name] for name in ("links", "tables")} == {name: before[name] for name in ("links", "tables")}
    assert str(run.layout.var) not in Path("/proc/self/mounts").read_text()


def _traces() -> dict[str, Any]:
    """What a stack may leave in the kernel."""
    listing = commands.run_json("nft", "-j", "list", "tables")["nftables"]
    return {
        "links": sorted(link["ifname"] for link in commands.run_json("ip", "-j", "link")),
        "tables": sorted(item["table"]["name"] for item in listing if "table" in item),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


@pytest.fixture(scope="session")
def api(stack: StackRun) -> Api:
    return _api_of(stack)


def _api_of(stack: StackRun) -> Api:
    return Api(f"http://127.0.0.1:{stack.settings.ports.public}", stack.layout.token_file.read_text().strip())


@pytest.fixture(scope="session")
def laptop(folder: Path) -> Path:
    """A private key, and its public half beside it."""
    private = folder / "laptop"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", private], check=True)
    return private


def _store_key(api: Api, private: Path) -> None:
    public = private.with_suffix(".pub").read_text().strip()
    answer = api.call("POST", "/ssh-keys", {"name": "laptop", "public_key": public})
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="session")
def key(laptop: Path, api: Api) -> Path:
    """The private key, whose public half is stored under the name `laptop`."""
    _store_key(api, laptop)
    return laptop


@pytest.fixture(scope="session")
def rbd_api(rbd_stack: StackRun, laptop: Path) -> Api:
    made = _api_of(rbd_stack)
    _store_key(made, laptop)
    return made


@pytest.fixture(scope="session")
def rbd_guest_of(rbd_api: Api, laptop: Path) -> Fleet:
    return Fleet(rbd_api, laptop)


@pytest.fixture(scope="session")
def rbd_cluster(rbd_stack: StackRun) -> CephCluster:
    return ceph_stack.cluster_of(rbd_stack.settings)


@pytest.fixture(scope="session")
def fleet(api: Api, key: Path) -> dict[str, Json]:
    """The guests of `GUESTS`, perhaps still booting."""
    guests: dict[str, Json] = {}
    for name, fields in GUESTS.items():
        # HAProxy deals by weight and chance: a drained node makes `left` and `right` neighbours for certain
        away = guests["left"]["node"] if name == "right" else None
        if away:
            assert api.call("POST", f"/nodes/{away}/drain").status_code == 200
        guests[name] = api.create(name, 202, ssh_keys=["laptop"], **fields)
        if away:
            assert api.call("POST", f"/nodes/{away}/undrain").status_code == 200
    return guests


@pytest.fixture(scope="session")
def guest_of(api: Api, key: Path, fleet: dict[str, Json]) -> Fleet:
    return Fleet(api, key)
