"""Directories and files of a stack."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from terrace.stack import files, log_files
from terrace.stack.control import start_supervisor
from terrace.stack.errors import StackError
from terrace.stack.layout import LONGEST_SOCKET_PATH, Layout
from terrace.stack.setting_values import HIDDEN_FROM_HYPERVISORS
from terrace.stack.stop import end_supervisor


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Layout]:
    """A stack in a directory whose path is too long for sockets."""
    layout = Layout(tmp_path / ("d" * 100) / "var")
    layout.log.mkdir(parents=True)
    yield layout
    layout.short_sockets.unlink(missing_ok=True)


def test_sockets_lie_under_var_when_they_can() -> None:
    layout = Layout(Path("/srv/terrace/var"))
    assert layout.sockets == Path("/srv/terrace/var/sock")


def test_sockets_of_a_deep_directory_work(deep: Layout) -> None:
    deep.make_sockets()
    longest = deep.sockets / "hv10" / "libvirt-admin-sock"
    assert len(os.fsencode(longest)) <= LONGEST_SOCKET_PATH
    control = start_supervisor(deep)
    assert control.status() == []
    assert (deep.real_sockets / "stack").is_socket()
    end_supervisor(deep)
    assert not control.is_running()


def test_a_short_link_of_somebody_else_is_refused(deep: Layout) -> None:
    deep.short_sockets.symlink_to("/somewhere/else")
    with pytest.raises(StackError, match="is something else; remove it"):
        deep.make_sockets()
    deep.short_sockets.unlink()
    deep.short_sockets.mkdir()
    try:
        with pytest.raises(StackError, match="is something else; remove it"):
            deep.make_sockets()
    finally:
        deep.short_sockets.rmdir()


def test_no_socket_is_hidden_from_the_hypervisors() -> None:
    assert not any(Layout(Path("/x")).short_sockets.is_relative_to(hidden) for hidden in HIDDEN_FROM_HYPERVISORS)


def test_a_secret_is_private_and_stays(tmp_path: Path) -> None:
    secret = files.ensure_secret(tmp_path / "secrets" / "one")
    assert len(secret) == 48
    assert files.ensure_secret(tmp_path / "secrets" / "one") == secret
    assert (tmp_path / "secrets" / "one").stat().st_mode & 0o777 == 0o600


def test_a_large_log_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        log_files.rotate(log, largest_bytes=100)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"old\n" * 100


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"{line}\n" for line in range(100_000)))
    assert log_files.tail(log, 2) == "99998\n99999"
    assert log_files.tail(tmp_path / "none.log") == ""
