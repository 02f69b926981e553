from __future__ import annotations

import io
import time
from dataclasses import replace

import pycdlib
import pytest

from internal_api import cloudinit
from internal_api.cloudinit import GuestConfig
from internal_api.seed import build

GUEST = GuestConfig("1", "test-1", "52:54:00:00:00:01", None, user_data="#!/bin/sh\n" + "echo 🚀\n" * 500)


def test_holds_the_three_documents_under_both_kinds_of_names() -> None:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(build(GUEST)))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    expected = {
        "meta-data": cloudinit.meta_data(GUEST),
        "user-data": cloudinit.user_data(GUEST),
        "network-config": cloudinit.network_config(GUEST),
    }
    for name, text in expected.items():
        for path in ({"joliet_path": f"/{name}"}, {"rr_path": f"/{name}"}):
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **path)
            assert out.getvalue().decode() == text
    iso.close()


def test_equal_guests_have_equal_bytes_at_any_time_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(GUEST)
    assert build(replace(GUEST, hostname="other")) != first
    time.sleep(1.01 - time.time() % 1)  # ISO 9660 counts seconds
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    try:
        assert build(GUEST) == first
    finally:
        monkeypatch.undo()
        time.tzset()
