"""Filters on a bridge that two stacks' guests share, really made in the test run's own network namespace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from internal_api.drivers.nft_ruleset import add_text, elements_of, table_text
from internal_api.drivers.protocols import NicSpec
from terrace.stack import commands, guest_filters
from terrace.stack.settings import StackSettings

pytestmark = pytest.mark.usefixtures("private_network")
OFFICE = "br-office.1"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackSettings]:
    yield StackSettings.load(tmp_path, {"TERRACE_VAR": str(tmp_path / "var")})
    commands.run("nft", "flush", "ruleset", "bridge")


def add_guest(tap: str, ip: str | None) -> None:
    nic = NicSpec(mac="02:00:00:00:00:01", bridge=OFFICE, tap=tap)
    commands.run("nft", "-f", "-", input=table_text(OFFICE) + add_text(OFFICE, elements_of(nic, ip), "hv1"))


def define(stack: StackSettings, tap: str) -> None:
    folder = stack.layout.node("hv1") / "etc" / "qemu"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"<domain><devices>\n<target dev='{tap}'/>\n</devices></domain>"
    (folder / f"terrace-{tap}.xml").write_text(text)


def test_only_ours_go(stack: StackSettings) -> None:
    define(stack, "ttours1")
    define(stack, "ttours2")
    add_guest("ttours1", "10.1.0.1")
    add_guest("ttours2", None)
    add_guest("ttother", "10.1.0.2")
    guest_filters.remove(stack)
    left = commands.run("nft", "list", "ruleset", "bridge")
    assert "ttours" not in left
    assert left.count('"ttother"') == 3
    guest_filters.remove(stack)
    assert commands.run("nft", "list", "ruleset", "bridge") == left


def test_the_last_stack_takes_the_table_away(stack: StackSettings) -> None:
    define(stack, "ttours1")
    add_guest("ttours1", None)
    guest_filters.remove(stack)
    assert commands.run("nft", "list", "ruleset", "bridge") == ""
    guest_filters.remove(stack)


def test_a_table_of_others_is_left_alone(stack: StackSettings) -> None:
    commands.run("nft", "add", "table", "bridge", "filter")
    guest_filters.remove(stack)
    assert "table bridge filter" in commands.run("nft", "list", "ruleset", "bridge")
