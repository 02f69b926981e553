from __future__ import annotations

import pytest

from terrace.errors import TerraceError
from terrace.user_data import MAX_BYTES, parse_cloud_config, validate_user_data

HEAD = "#cloud-config\n"


def _aliases(body: str, joined: str) -> str:
    lines = [f"a0: &a0 {body}"]
    lines += [f"a{i}: &a{i} " + joined.format(",".join([f"*a{i - 1}"] * 9)) for i in range(1, 20)]
    return HEAD + "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\necho hi\n",
        "#!",
        "#cloud-config",
        HEAD,
        "#cloud-config\r\nruncmd: [ls]\r\n",
        HEAD + "runcmd:\n  - ls -l\n  - [echo, 'a b', 3]\n",
        HEAD + "users: [default, {name: bob}]\nwrite_files: [{path: /a, content: b}]\n",
        HEAD + "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n",
        HEAD + "🚀: ünïcödé\n",
        HEAD + "a: " + "x" * 65000,
    ],
)
def test_good(text: str) -> None:
    validate_user_data(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "must begin"),
        ("echo", "must begin"),
        (" #cloud-config\n", "must begin"),
        ("#cloud-config-archive\n- a\n", "must begin"),
        ("#!" + "x" * MAX_BYTES, "larger than 65536"),
        ("#!" + "é" * (MAX_BYTES // 2), "larger than 65536"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\n\ud800", "surrogate"),
        (HEAD + "- a\n", "mapping"),
        (HEAD + "text\n", "mapping"),
        (HEAD + "a: [", "line 3"),
        (HEAD + "\ta: 1", "line 2, column 1"),
        (HEAD + "a: 1\n---\nb: 2\n", "another document"),
        (HEAD + "a: \x07", "not valid YAML"),
        (HEAD + "[" * 60000, "levels deep"),
        (HEAD + "- " * 30000, "levels deep"),
        (HEAD + "a: &a [*a]", "contains itself"),
        (_aliases("[x,x,x,x,x,x,x,x,x]", "[{}]"), "aliases expanded"),
        (_aliases("{k: 1, l: 2}", "{{<<: [{}]}}"), "aliases expanded"),
        (HEAD + "1: x", "put it in quotes"),
        (HEAD + "a: {on: x}", "in a is not text"),
        (HEAD + "a: .nan", "finite"),
        (HEAD + "a: [1, -.inf]", "a[1]"),
        (HEAD + "a: !!binary aGk=", "not in JSON"),
        (HEAD + "a: !!set {b}", "not in JSON"),
        (HEAD + "a: !!timestamp 2001-01-01", "not in JSON"),
        (HEAD + "a: !!timestamp never", "not valid YAML"),
        (HEAD + "a: !!int x", "not valid YAML"),
        (HEAD + "a: !!bool x", "not valid YAML"),
        (HEAD + "a: !!python/name:os.system x", "not valid YAML"),
        (HEAD + "a: " + "9" * 60000, "not valid YAML"),
        (HEAD + "a: 0x" + "f" * 60000, "64 bits"),
        (HEAD + "a: 1" + ":59" * 100, "64 bits"),
        (HEAD + "k" * 300 + ": 1", "longer than 256"),
        (HEAD + 'a: "\\0"', "NUL"),
        (HEAD + "runcmd: ls", "runcmd must be a list"),
        (HEAD + "runcmd: null", "runcmd must be a list"),
        (HEAD + "runcmd: [{a: b}]", "each entry of runcmd"),
        (HEAD + "write_files: [{content: x}]", "each entry of write_files"),
        (HEAD + "users: [{gecos: x}]", "each entry of users"),
        (HEAD + "users: {name: x}", "users must be a list"),
        (HEAD + "ssh_authorized_keys: [1]", "each entry of ssh_authorized_keys"),
    ],
)
def test_bad(text: str, hint: str) -> None:
    with pytest.raises(TerraceError) as refused:
        validate_user_data(text)
    assert refused.value.code == "invalid_user_data"
    assert hint in refused.value.detail
    assert refused.value.detail.endswith(".")
    assert len(refused.value.detail) < 300


def test_dates_stay_the_text_they_are() -> None:
    assert parse_cloud_config(HEAD + "a: 2026-01-31\nb: 2001-12-14t21:59:43.10-05:00\n") == {
        "a": "2026-01-31",
        "b": "2001-12-14t21:59:43.10-05:00",
    }


def test_yaml_1_1_as_cloud_init_reads_it() -> None:
    assert parse_cloud_config(HEAD + "mode: 0644\nflag: yes\nempty:\nrate: 1e3\n") == {
        "mode": 420,
        "flag": True,
        "empty": None,
        "rate": "1e3",
    }
