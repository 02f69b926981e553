"""What tests of the running platform share: one stack for the whole run, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx
import pytest
from support import fake_stack as stacks
from support import image_files
from support.api import Api
from support.fake_stack import FakeStack


@pytest.fixture(scope="session")
def fake_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeStack]:
    """A stack with an image named ``tiny``; it lives in the network namespace in which the tests run."""
    stack = stacks.start(tmp_path_factory.mktemp("stack") / "var")
    try:
        upload = httpx.post(
            f"{stack.url}/api/v1/images?name=tiny",
            content=image_files.raw("tiny"),
            headers={"Authorization": f"Bearer {stack.token}", "Content-Type": "application/octet-stream"},
            trust_env=False,
        )
        assert upload.status_code == 201, upload.text
        yield stack
    finally:
        stacks.stop(stack)


@pytest.fixture
async def api(fake_stack: FakeStack) -> AsyncIterator[Api]:
    """The public API; VMs that a test leaves are deleted."""
    async with Api.open(fake_stack.url, fake_stack.token) as client:
        yield client
        await client.delete_all_vms()


@pytest.fixture
async def database(fake_stack: FakeStack) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The stack's database, as its owner."""
    connection = await fake_stack.connect()
    yield connection
    await connection.close()
