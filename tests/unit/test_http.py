"""How long a client wants to wait, and how JSON is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.http import dumps, wanted_wait_s


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        (None, 30), ("", 30), ("respond-async", 0), ("Respond-Async", 0), ("wait=5", 5), ("wait=0", 0), ("WAIT=5", 5),
        ("wait=60", 60), ("wait=61", 60), ("wait=99999999999999999999", 60), ('wait="7"', 7), (" wait = 7 ", 7),
        ("respond-async, wait=10", 10), ("wait=10, respond-async", 10), ("return=minimal, wait=3", 3),
        ("wait=3; foo=bar", 3), ("wait=abc", 30), ("wait=-1", 30), ("wait=1.5", 30), ("wait=", 30), ("wait", 30),
        ("wait=٣", 30), ("return=minimal", 30),
    ],
)  # fmt: skip
def test_the_preferred_wait(prefer: str | None, wait_s: float) -> None:
    assert wanted_wait_s(prefer) == wait_s


@given(st.text(max_size=60))
def test_any_header_gives_a_wait(prefer: str) -> None:
    assert 0 <= wanted_wait_s(prefer) <= 60


def test_times_are_utc() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    assert dumps(moment) == b'"2026-01-31T12:00:00Z"'
    assert dumps(moment, precise=True) == b'"2026-01-31T12:00:00.123456Z"'
    assert dumps(moment.astimezone(timezone(timedelta(hours=2))).astimezone(UTC)) == b'"2026-01-31T12:00:00Z"'
