"""Cursors: what was given out comes back, and nothing else does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace import cursor
from terrace.errors import TerraceError
from terrace.types import MAX_ID


@given(st.integers(0, MAX_ID))
def test_every_id_comes_back(last_id: int) -> None:
    text = cursor.encode(last_id)
    assert cursor.decode(text, start=0) == last_id
    assert text.isascii()
    assert set(text).isdisjoint("+/=&?# ")


def test_no_cursor_is_the_start() -> None:
    assert cursor.decode(None, start=7) == 7


def made(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1", "djE6", "!!!!", "a b", "ü", "\x00", "=", "====", "djE6MQ==\n",
        made("v1:"), made("v1:-1"), made("v1:1.5"), made("v1: 1"), made("v1:1e3"), made("v2:1"), made("1"),
        made(f"v1:{MAX_ID + 1}"), made("v1:" + "9" * 30), made("v1:١"), made("v1:1:2"),
    ],
)  # fmt: skip
def test_what_we_never_gave_out_is_refused(text: str) -> None:
    with pytest.raises(TerraceError) as refused:
        cursor.decode(text, start=0)
    assert (refused.value.code, refused.value.status) == ("bad_cursor", 400)


@given(st.text())
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        found = cursor.decode(text, start=0)
    except TerraceError as error:
        assert error.code == "bad_cursor"
    else:
        assert 0 <= found <= MAX_ID


def test_the_link_keeps_the_filters() -> None:
    link = cursor.next_link("/api/v1/vms", [("label", "a=b&c"), ("cursor", "old"), ("label", "x"), ("limit", "2")], 5)
    assert link == f'</api/v1/vms?label=a%3Db%26c&label=x&limit=2&cursor={cursor.encode(5)}>; rel="next"'
