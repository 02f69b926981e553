"""The body of a create: both spellings, strict types, and sentences that help."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from terrace.api.name import check_name
from terrace.api.vm import ActionBody, VmCreate, validate_action_body
from terrace.errors import TerraceError

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def parse(**body: Any) -> VmCreate:
    """From Python, as the public tier does, and from JSON, as the internal one does: with one result."""
    made = VmCreate.model_validate({"name": "vm", **body})
    again = VmCreate.model_validate_json(orjson.dumps(made.model_dump(exclude_unset=True)))
    assert again == made
    return made


def test_the_shortest_body() -> None:
    made = parse()
    assert (made.cpu, made.ram_mib, made.disk_gib, made.image, made.network) == (1, 512, 10, "tiny", "default")
    assert (made.ssh_keys, made.files, made.labels, made.user_data, made.password_hash) == ([], [], {}, None, None)


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "test-1", "RAM": "1024", "CPU": "2", "Disk": "10G"},
        {"Name": "test-1", "RAM": 1024, "CPU": 2, "Disk": 10},
        {"name": "test-1", "RAM": "1024", "cpu": 2, "Disk": "10"},
    ],
)
def test_loose_spellings(body: dict[str, Any]) -> None:
    made = VmCreate.model_validate(body)
    assert (made.name, made.ram_mib, made.cpu, made.disk_gib) == ("test-1", 1024, 2, 10)
    assert set(made.model_dump(exclude_unset=True)) == {"name", "ram_mib", "cpu", "disk_gib"}


@given(st.integers(1, 64), st.sampled_from(["", "G", "T"]), st.booleans())
def test_sizes_of_disks(amount: int, unit: str, as_number: bool) -> None:
    value: Any = amount if as_number and not unit else f"{amount}{unit}"
    made = VmCreate.model_validate({"Name": "a", "Disk": value})
    assert made.disk_gib == amount * (1024 if unit == "T" else 1)


@given(st.text(max_size=8))
def test_no_other_text_is_a_size(text: str) -> None:
    try:
        made = VmCreate.model_validate({"Name": "a", "Disk": text})
    except ValidationError:
        return
    assert text.removesuffix("G").removesuffix("T").isdigit()
    assert text[0] in "123456789"
    assert made.disk_gib >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"Disk": "0"}, {"Disk": "010"}, {"Disk": "10g"}, {"Disk": "10GB"}, {"Disk": "10 G"}, {"Disk": "1.5G"},
        {"Disk": "-1"}, {"Disk": ""}, {"Disk": "65T"}, {"Disk": "10G\n"}, {"Disk": 1.5}, {"Disk": True}, {"Disk": []},
        {"Disk": "9" * 30}, {"Disk": "١"}, {"CPU": "two"}, {"CPU": "0"}, {"CPU": "1.0"}, {"CPU": 0}, {"CPU": "2\n"},
        {"CPU": False}, {"CPU": None}, {"RAM": "1G"}, {"RAM": "1024M"}, {"RAM": -1}, {"RAM": 1e3}, {"Name": "x"},
        {"CPU": 1, "cpu": 1}, {"cpu": "1"}, {"cpu": 1.0}, {"cpu": True}, {"cpu": None}, {"cpu": 0}, {"cpu": 513},
        {"cpu": 2**70}, {"ram_mib": 63}, {"ram_mib": "512"}, {"disk_gib": 0}, {"disk_gib": "10"}, {"disk_gib": 65_537},
        {"unknown": 1}, {"NAME": "x"}, {"image": ""}, {"image": 1}, {"image": "x" * 64}, {"image": "a\x00"},
        {"network": "a\x00"}, {"network": None}, {"ssh_keys": "key"}, {"ssh_keys": [1]}, {"ssh_keys": ["a\x00"]},
        {"ssh_keys": ["x"] * 65}, {"password_hash": "secret"}, {"password_hash": "$6$salt$hash0000\n"},
        {"labels": {"a": 1}}, {"labels": {"a b": "c"}}, {"labels": []}, {"labels": {"a": "x\n"}},
        {"files": [{"path": "relative", "content": ""}]}, {"files": [{"path": "/a/../b", "content": ""}]},
        {"files": [{"path": "/a/", "content": ""}]}, {"files": [{"path": "/a", "content": "x" * 65_537}]},
        {"files": [{"path": "/a", "content": "\x00"}]}, {"files": [{"path": "/a\n", "content": ""}]},
        {"files": [{"path": "/a"}]}, {"files": [{"path": "/a", "content": "", "mode": "999"}]},
        {"files": [{"path": "/a", "content": "", "mode": 644}]}, {"files": [{"path": "/a", "content": "", "x": 1}]},
    ],
)  # fmt: skip
def test_wrong_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VmCreate.model_validate({"name": "vm", **wrong})


@pytest.mark.parametrize(
    "wrong", [{"ssh_keys": ["ssh-rsa AAAA"]}, {"user_data": "echo"}, {"user_data": "#!" + "x" * 65_536}]
)
def test_wrong_values_with_codes_of_their_own(wrong: dict[str, Any]) -> None:
    with pytest.raises((TerraceError, ValidationError)):
        VmCreate.model_validate({"name": "vm", **wrong})


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, {"name": None}])
def test_what_is_no_body_at_all(body: Any) -> None:
    with pytest.raises(ValidationError):
        VmCreate.model_validate(body)


@given(st.sampled_from(["image", "network", "name", "password_hash", "user_data"]))
def test_half_a_surrogate_pair_is_no_text(field: str) -> None:
    with pytest.raises((ValidationError, TerraceError)):
        VmCreate.model_validate({"name": "vm", field: "#!\ud800"})


@given(st.from_regex(LABEL, fullmatch=True))
def test_names_are_labels(name: str) -> None:
    if name.isdigit():
        with pytest.raises(ValueError, match="digits"):
            check_name(name)
    else:
        assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\n", "a" * 64, "1", "0123", "a/b", "..", "a\x00"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"must (be an RFC 1123 label|not be all digits)"):
        check_name(name)


def test_bodies_of_actions() -> None:
    assert validate_action_body(None) == validate_action_body({}) == ActionBody(timeout_s=60)
    assert validate_action_body({"timeout_s": 5}).timeout_s == 5
    for wrong in ({"timeout_s": 0}, {"timeout_s": 601}, {"timeout_s": "5"}, {"timeout_s": None}, {"x": 1}, [1], "x", 5):
        with pytest.raises((ValidationError, TerraceError)):
            validate_action_body(wrong)
