"""A supervisor of its own for each test, in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from terrace.stack import commands, stop
from terrace.stack.control import Control, start_supervisor
from terrace.stack.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "var")
    for directory in (layout.run, layout.log):
        directory.mkdir(parents=True)
    layout.make_sockets()
    return layout


@pytest.fixture
def control(layout: Layout) -> Iterator[Control]:
    yield start_supervisor(layout)
    stop.end_supervisor(layout)
    stop.end_leftovers(layout)


@pytest.fixture
def private_network() -> None:
    """Tests that make bridges and tables run in a network namespace of the test run's own."""
    routes = commands.run_json("ip", "-j", "route", "show", "default")
    assert routes == [], "run the tests with scripts/test: these change the network of their namespace"
