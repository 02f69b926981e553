"""Labels and selectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace import labels
from terrace.errors import TerraceError

keys = st.from_regex(labels.KEY, fullmatch=True)
values = st.from_regex(labels.VALUE, fullmatch=True)


@given(st.dictionaries(keys, values, max_size=8))
def test_selectors_say_what_labels_hold(wanted: dict[str, str]) -> None:
    labels.check(wanted)
    one_each = [f"{key}={value}" for key, value in wanted.items()]
    assert labels.parse_selectors(one_each) == (wanted, [])
    if wanted:
        assert labels.parse_selectors([" , ".join(one_each)]) == (wanted, [])
        assert labels.parse_selectors(list(wanted)) == ({}, list(wanted))


@given(st.lists(st.text(max_size=80), max_size=4))
def test_any_selector_is_understood_or_refused(texts: list[str]) -> None:
    try:
        equal, present = labels.parse_selectors(texts)
    except TerraceError as error:
        assert (error.code, error.status) == ("bad_filter", 400)
    else:
        labels.check({**equal, **dict.fromkeys(present[: labels.MOST], "")})


@pytest.mark.parametrize(
    "text", ["", "=", "=x", "a=b=c", "a,,b", "a b=c", "-a=b", "a=b\n,", "a=ü", "a" * 64, "a=" + "b" * 64, "a=b,a=c"]
)
def test_malformed_selectors(text: str) -> None:
    with pytest.raises(TerraceError):
        labels.parse_selectors([text])


@pytest.mark.parametrize(
    "wrong",
    [{"": "x"}, {"a\n": "x"}, {"a": "x\n"}, {"a b": "x"}, {"a": "-"}, {"a" * 64: "x"}, {"a": "x" * 64}, {".a": "x"}],
)
def test_malformed_labels(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        labels.check(wrong)


def test_as_many_as_allowed() -> None:
    labels.check({f"k{number}": "" for number in range(64)})
    with pytest.raises(ValueError, match="64"):
        labels.check({f"k{number}": "" for number in range(65)})
