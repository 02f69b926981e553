"""Schemathesis over the live OpenAPI document: nothing that it makes up is a server error."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import image_files
from support.api import Api
from support.fake_stack import FakeStack
from support.polling import eventually

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("response_headers_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method"),
    *("use_after_free", "ignored_auth", "allow_header_conformance"),
)


@pytest.fixture
async def tidy(api: Api) -> AsyncIterator[None]:
    """What Schemathesis has made and drained is undone."""
    yield
    for name in ("hv1", "hv2"):
        await api.http.post(f"/nodes/{name}/undrain")
    await api.delete_all_vms()

    async def is_tidy() -> bool:
        left = False
        for kind, kept in (("images", "tiny"), ("ssh-keys", ""), ("networks", "default")):
            for item in await api.all(f"/{kind}"):
                if item["name"] != kept:
                    left = True  # an import may still be under way
                    await api.http.delete(f"/{kind}/{item['id']}")
        return not left

    await eventually(is_tidy)
    if (await api.http.get("/images/tiny")).status_code == 404:
        headers = {"Content-Type": "application/octet-stream"}
        await api.http.post("/images?name=tiny", content=image_files.raw("tiny"), headers=headers)


@pytest.mark.usefixtures("tidy")
async def test_made_up_requests(fake_stack: FakeStack, tmp_path: Path) -> None:
    # fuzzing drains the nodes, too, and then 507 is true
    config = tmp_path / "schemathesis.toml"
    config.write_text('[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 507]\n')
    examples, seconds = ("100", "240") if os.environ.get("TERRACE_TEST_FULL") else ("10", "40")
    # one worker: Python 3.11 can't parse its own sources in two threads at once, which Hypothesis does
    command = [
        *(
            str(Path(sys.executable).parent / "st"),
            "--config-file",
            str(config),
            "run",
            f"{fake_stack.url}/openapi.json",
        ),
        *("--header", f"Authorization: Bearer {fake_stack.token}"),
        *("--header", "Prefer: wait=1"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", examples),
        *("--seed", "1", "--generation-database", "none", "--workers", "1", "--request-timeout", "20", "--no-color"),
        *("--suppress-health-check", "all", "--max-time", seconds),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-20_000:]
