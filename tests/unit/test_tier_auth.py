"""The signature between the tiers covers every part of a request, and ages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace import tier_auth
from terrace.types import Identity, ProjectId, TokenId

WHO = Identity(ProjectId(1), TokenId(2), "admin")
NOW = 1_000_000.0
REQUEST: dict[str, Any] = {"method": "POST", "target": "/internal/v1/vms?a=b", "body_hash": "abc", "key": "k"}


def signed(secret: bytes = b"secret", **changed: Any) -> tuple[str, str]:
    headers = tier_auth.sign(secret, WHO, now=NOW, **{**REQUEST, **changed})
    return headers[tier_auth.IDENTITY_HEADER], headers[tier_auth.SIGNATURE_HEADER]


def test_what_was_signed_is_known() -> None:
    claims, signature = signed()
    assert tier_auth.verify(b"secret", claims, signature, now=NOW, **REQUEST) == WHO


@pytest.mark.parametrize("part", REQUEST)
def test_any_other_request_is_not(part: str) -> None:
    claims, signature = signed()
    changed = {**REQUEST, part: REQUEST[part] + "x"}
    assert tier_auth.verify(b"secret", claims, signature, now=NOW, **changed) is None


def test_parts_do_not_run_together() -> None:
    claims, signature = signed(target="/a", body_hash="b")
    assert (
        tier_auth.verify(b"secret", claims, signature, now=NOW, **{**REQUEST, "target": "/", "body_hash": "ab"}) is None
    )


def test_another_secret() -> None:
    claims, signature = signed(b"other")
    assert tier_auth.verify(b"secret", claims, signature, now=NOW, **REQUEST) is None


def test_another_identity() -> None:
    claims, signature = signed()
    forged = claims.replace("1", "7", 1)
    assert forged != claims
    assert tier_auth.verify(b"secret", forged, signature, now=NOW, **REQUEST) is None


@pytest.mark.parametrize(
    ("age", "valid"), [(-59, True), (0, True), (59, True), (61, False), (-61, False), (9e9, False)]
)
def test_a_signature_ages(age: float, valid: bool) -> None:
    claims, signature = signed()
    assert (tier_auth.verify(b"secret", claims, signature, now=NOW + age, **REQUEST) is not None) is valid


@given(st.text(max_size=100), st.text(max_size=100))
def test_nothing_else_verifies(claims: str, signature: str) -> None:
    try:
        claims.encode()
        signature.encode()
    except UnicodeEncodeError:
        return
    assert tier_auth.verify(b"secret", claims, signature, now=NOW, **REQUEST) is None
