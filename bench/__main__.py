"""Run by bench/run, inside namespaces of its own."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import uvloop

from bench import guests, machine
from bench.control_plane import FULL, QUICK, ControlPlane
from bench.report import Section
from bench.stack import CHECKOUT, started
from bench.vms import import_image

RESULTS = CHECKOUT / "bench" / "RESULTS.md"
CONTROL_PLANE = ("memory", "creates", "reads", "scale")
WITH_IMAGE = ("guests", "ceph")
PARTS = (*CONTROL_PLANE, *WITH_IMAGE)
TITLE = """\
# How fast and how lean

The newest whole run of `bench/run`. Requests take the real path: HAProxy, an external node, HAProxy, an
internal node, PostgreSQL and Redis; two nodes of each tier, and the clients, share this machine:
"""


def main() -> int:
    arguments = _arguments()
    chosen = [name for name in PARTS if name in (arguments.only or PARTS)]
    if arguments.no_qemu:
        chosen = [name for name in chosen if name not in WITH_IMAGE]
    if "ceph" in chosen and find_spec("rbd") is None:
        sys.exit("The part ceph needs Ceph's packages and bindings: scripts/up --storage rbd installs them.")
    sections: list[Section] = []
    if any(name in CONTROL_PLANE for name in chosen):
        with started(arguments.scratch / "test", "test") as stack:
            measures = ControlPlane(stack, QUICK if arguments.quick else FULL)
            sections += uvloop.run(_control_plane(measures, chosen))
    if "guests" in chosen:
        with started(arguments.scratch / "qemu", "qemu", arguments.image) as stack:
            sections += _told(uvloop.run(guests.measure(stack, rounds=2 if arguments.quick else 7)))
    if "ceph" in chosen:
        sections += _ceph(arguments)
    facts = machine.describe()
    print(facts)
    if not (arguments.quick or arguments.only or arguments.no_qemu):
        RESULTS.write_text("\n".join((TITLE, facts + "\n", *map(str, sections))))
    return 0


async def _control_plane(measures: ControlPlane, chosen: list[str]) -> list[Section]:
    sections: list[Section] = []
    if "memory" in chosen:
        sections += _told(await measures.memory())  # before there is anything to remember
    await import_image(measures.stack)
    if "creates" in chosen:
        sections += _told(await measures.creates())
    if "reads" in chosen:
        sections += _told(await measures.reads())
    if "scale" in chosen:
        sections += _told(await measures.scale())
    return sections


def _ceph(arguments: argparse.Namespace) -> list[Section]:
    from bench import ceph_clones, ceph_guests  # the other parts need no Ceph

    with started(arguments.scratch / "ceph-test", "test", arguments.image, storage="rbd") as stack:
        size = ceph_clones.QUICK if arguments.quick else ceph_clones.FULL
        sections = _told(uvloop.run(ceph_clones.measure(stack, arguments.image, size)))
    with started(arguments.scratch / "ceph-qemu", "qemu", arguments.image, storage="rbd") as stack:
        rounds = 2 if arguments.quick else 7
        return sections + _told(uvloop.run(ceph_guests.measure(stack, rounds)))


def _told(sections: list[Section]) -> list[Section]:
    for section in sections:
        print(section, flush=True)
    return sections


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
