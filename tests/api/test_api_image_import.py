"""Images by URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support import image_files
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.file_server import FileServer, serving
from support.problems import assert_problem


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


async def import_(
    api: Api, url: str, name: str = "", headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    return await api.http.post(
        "/images", json={"name": name or new_name("image"), "url": url, **fields}, headers=headers
    )


@pytest.mark.parametrize("prefix", ["", "to/{url}/file/"])
async def test_an_import_from_a_url(api: Api, server: FileServer, prefix: str) -> None:
    content = image_files.qcow2("import" + prefix, 2**30)
    server.files["disk.qcow2"] = content
    path = f"to/{server.url}/file/disk.qcow2" if prefix else "file/disk.qcow2"
    checksum = image_files.checksum(content)
    response = await import_(api, f"{server.url}/{path}", checksum=checksum, format="qcow2")
    assert response.status_code == 201, response.text
    image = response.json()
    assert (image["status"], image["format"], image["checksum"]) == ("available", "qcow2", checksum)
    assert (image["size_bytes"], image["min_disk_gib"]) == (len(content), 1)
    op = await api.get(f"/operations/{image['operation']}")
    assert (op["kind"], op["state"], op["image"]) == ("image_import", "succeeded", image["id"])
    assert (await api.create(image=image["name"]))["image"] == image["name"]
    await api.delete_all_vms()
    assert (await api.http.delete(f"/images/{image['name']}")).status_code == 204


async def test_a_slow_server(api: Api, server: FileServer) -> None:
    name, key = new_name("image"), {"Idempotency-Key": new_name("key")}
    server.files["disk"] = image_files.raw(name)
    url = f"{server.url}/slow/disk"
    response = await import_(api, url, name, headers={"Prefer": "wait=1", **key})
    assert response.status_code == 202
    image = response.json()
    assert (image["status"], image["checksum"]) == ("importing", None)
    assert response.headers["location"] == f"/api/v1/operations/{image['operation']}"
    assert_problem(await api.post_vm(image=name), 409, "image_not_ready")
    assert_problem(await api.http.delete(f"/images/{name}"), 409, "image_not_ready")
    assert_problem(await import_(api, url, name), 409, "name_taken")
    server.go_on.set()
    assert (await api.operation(response))["state"] == "succeeded"
    again = await import_(api, url, name, headers=key)
    assert (again.status_code, again.json()["status"], again.json()["id"]) == (201, "available", image["id"])
    assert len(server.requests) == 1
    assert (await api.http.delete(f"/images/{name}")).status_code == 204


@pytest.mark.parametrize(
    ("path", "fields", "code"),
    [
        ("404/none", {}, "image_download_failed"),
        ("403/none", {}, "image_download_failed"),
        ("to/ftp://127.0.0.1/x", {}, "image_download_failed"),
        ("file/disk", {"checksum": "sha256:" + "1" * 64}, "checksum_mismatch"),
        ("file/disk", {"format": "qcow2"}, "image_invalid"),
        ("file/odd", {}, "image_invalid"),
        ("file/backed", {}, "image_invalid"),
    ],
)
async def test_an_import_that_fails_is_undone(
    api: Api, fake_stack: FakeStack, server: FileServer, path: str, fields: dict[str, str], code: str
) -> None:
    server.files |= {
        "disk": image_files.raw("fails"),
        "odd": b"x" * 700,
        "backed": image_files.qcow2("x", backing="/etc/shadow"),
    }
    before = {name: world.names("images") for name, world in fake_stack.worlds.items()}
    problem = assert_problem(await import_(api, f"{server.url}/{path}", "failing", **fields), 422, code)
    assert (await api.get(f"/operations/{problem['operation']}"))["state"] == "failed"
    assert_problem(await api.http.get("/images/failing"), 404, "not_found")
    assert {name: world.names("images") for name, world in fake_stack.worlds.items()} == before


async def test_servers_that_may_work_later_are_asked_a_few_times(api: Api, server: FileServer) -> None:
    server.files["disk"] = image_files.raw("cut")
    urls = [f"{server.url}/{path}" for path in ("500/none", "cut/disk", "to/http://[::1/x")]
    urls.append("http://127.0.0.1:9/disk")
    for response in await asyncio.gather(*(import_(api, url) for url in urls)):
        problem = assert_problem(response, 422, "image_download_failed")
        op = await api.get(f"/operations/{problem['operation']}")
        assert [step["attempts"] for step in op["steps"]] == [1, 5]
    assert len(server.requests) == 15
    assert [image["name"] for image in await api.get("/images")] == ["tiny"]


@pytest.mark.parametrize(
    "body",
    [
        {"url": ""},
        {"url": "disk.qcow2"},
        {"url": "file:///etc/passwd"},
        {"url": "http://"},
        {"url": "http:///path"},
        {"url": "http://[::1/x"},
        {"url": "http://host:99999/"},
        {"url": "http://host:port/"},
        {"url": "http://host/a b"},
        {"url": "http://host/\x00"},
        {"url": "http://host/\n"},
        {"url": "http://h/" + "a" * 2048},
        {"url": 1},
        {"url": None},
        {"checksum": "sha256:123"},
        {"checksum": None},
        {"format": "vdi"},
        {"format": None},
        {"name": "Image"},
        {"name": "1"},
        {"size": 1},
    ],
    ids=str,
)
async def test_bodies_of_imports_are_checked(api: Api, body: dict[str, Any]) -> None:
    response = await api.http.post("/images", json={"name": "x1", "url": "http://127.0.0.1:9/x", **body})
    assert_problem(response, 422, "invalid_request")
    assert_problem(await api.http.get("/images/x1"), 404)
