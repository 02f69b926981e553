"""A supervisor of its own for each test, in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.network_namespaces import inside, new_namespace

from terrace.stack import stop
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
def private_network() -> Iterator[None]:
    """A network namespace of the test's own, in which no other stack has a bridge, table or setting."""
    with new_namespace() as namespace, inside(namespace):
        yield
