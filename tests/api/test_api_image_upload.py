"""Images by upload: what is taken, what is refused, and that nothing is left of what was refused."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from support import image_files
from support.api import Api, new_name
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

KEYS = {"id", "name", "status", "format", "size_bytes", "min_disk_gib", "checksum", "operation", "created_at"}


async def upload(api: Api, content: bytes | AsyncIterator[bytes], *, key: str = "", **query: str) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream"} | ({"Idempotency-Key": key} if key else {})
    return await api.http.post("/images", params=query, content=content, headers=headers)


def stored(stack: FakeStack) -> set[str]:
    return {name for world in stack.worlds.values() for name in world.names("images") + world.names("image-files")}


@pytest.mark.parametrize("format", ["", "raw", "qcow2"])
async def test_an_upload_is_checked_and_listed(api: Api, fake_stack: FakeStack, format: str) -> None:
    name = new_name("image")
    content = image_files.qcow2(name, 5 * 2**30 + 512) if format == "qcow2" else image_files.raw(name)
    declared = {"format": format} if format else {}
    checksum = image_files.checksum(content)
    response = await upload(api, content, name=name, checksum=checksum, **declared)
    assert response.status_code == 201, response.text
    image = response.json()
    assert image.keys() == KEYS
    assert (image["name"], image["status"], image["checksum"]) == (name, "available", checksum)
    assert (image["format"], image["size_bytes"]) == (format or "raw", len(content))
    assert image["min_disk_gib"] == (6 if format == "qcow2" else 1)
    assert await api.get(f"/images/{name}") == await api.get(f"/images/{image['id']}") == image
    assert image in await api.all("/images?limit=1")
    if format == "qcow2":
        problem = assert_problem(await api.post_vm(image=name, disk_gib=5), 422, "size_out_of_range")
        assert "6" in problem["detail"]
        assert (await api.create(image=name, disk_gib=6))["image"] == name
        await api.delete_all_vms()
    assert (await api.http.delete(f"/images/{image['id']}")).status_code == 204
    assert_problem(await api.http.get(f"/images/{name}"), 404, "not_found")
    await bytes_are_gone(fake_stack, checksum)


async def bytes_are_gone(stack: FakeStack, checksum: str) -> None:
    async def gone() -> bool:
        return checksum.removeprefix("sha256:") not in stored(stack)

    await eventually(gone)


async def test_an_upload_in_chunks_of_unknown_length(api: Api) -> None:
    name = new_name("image")
    content = image_files.raw(name, 3 * image_files.MIB)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    response = await upload(api, chunks(), name=name)
    assert response.status_code == 201, response.text
    assert response.json()["checksum"] == image_files.checksum(content)
    assert (await api.http.delete(f"/images/{name}")).status_code == 204


REFUSED = {
    "empty": (b"", {}, "image_invalid"),
    "odd size": (b"x" * 1000, {}, "image_invalid"),
    "not qcow2": (image_files.raw("a"), {"format": "qcow2"}, "image_invalid"),
    "not raw": (image_files.qcow2("a"), {"format": "raw"}, "image_invalid"),
    "qcow2 cut off": (image_files.qcow2("a")[:40], {}, "image_invalid"),
    "qcow2 of a future version": (image_files.qcow2("a", version=9), {}, "image_invalid"),
    "qcow2 of no size": (image_files.qcow2("a", 0), {}, "image_invalid"),
    "qcow2 of 100 EiB": (image_files.qcow2("a", 2**63), {}, "image_invalid"),
    "backing file": (image_files.qcow2("a", backing="/etc/passwd"), {}, "image_invalid"),
    "backing file by protocol": (
        image_files.qcow2("a", backing="nbd://10.0.0.1/x"),
        {"format": "qcow2"},
        "image_invalid",
    ),
    "vmdk": (b"KDMV" + bytes(508), {}, "image_invalid"),
    "gzip": (b"\x1f\x8b" + bytes(510), {}, "image_invalid"),
    "other checksum": (image_files.raw("a"), {"checksum": "sha256:" + "0" * 64}, "checksum_mismatch"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_no_image_is_refused(api: Api, fake_stack: FakeStack, what: str) -> None:
    content, query, code = REFUSED[what]
    before = stored(fake_stack)
    assert_problem(await upload(api, content, name="refused", **query), 422, code)
    assert_problem(await api.http.get("/images/refused"), 404, "not_found")
    assert stored(fake_stack) == before


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"name": ""},
        {"name": "Image"},
        {"name": "7"},
        {"name": "a" * 64},
        {"name": "a\n"},
        {"name": "a\x00"},
        {"name": "ok", "format": "vmdk"},
        {"name": "ok", "format": ""},
        {"name": "ok", "checksum": "md5:abc"},
        {"name": "ok", "checksum": "sha256:" + "A" * 64},
        {"name": "ok", "checksum": "0" * 64},
    ],
    ids=str,
)
async def test_queries_of_uploads_are_checked(api: Api, query: dict[str, str]) -> None:
    assert_problem(await upload(api, image_files.raw("q"), **query), 422, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "a"])
async def test_other_types_of_content_are_refused(api: Api, kind: str) -> None:
    response = await api.http.post("/images?name=x1", content=b"x" * 512, headers={"Content-Type": kind})
    assert_problem(response, 415, "unsupported_media_type")


async def test_a_name_is_taken_once(api: Api, fake_stack: FakeStack) -> None:
    name = new_name("image")
    contents = [image_files.raw(f"{name}-{n}") for n in range(6)]
    responses = await asyncio.gather(*(upload(api, content, name=name) for content in contents))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 5
    for response in responses:
        if response.status_code == 409:
            assert_problem(response, 409, "name_taken")
    winner = next(response.json() for response in responses if response.status_code == 201)
    left = {image_files.checksum(content).removeprefix("sha256:") for content in contents} & stored(fake_stack)
    assert left == {winner["checksum"].removeprefix("sha256:")}, "the bytes of refused uploads are gone"
    big = image_files.raw(name, 9 * image_files.MIB)
    assert_problem(await upload(api, big, name=name), 409, "name_taken")
    assert (await api.http.delete(f"/images/{name}")).status_code == 204


async def test_a_repeated_upload_is_one_image(api: Api) -> None:
    name, key = new_name("image"), new_name("key")
    content = image_files.raw(name)
    first, again = await upload(api, content, name=name, key=key), await upload(api, content, name=name, key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert_problem(await upload(api, image_files.raw("other"), name=name, key=key), 422, "idempotency_key_reused")
    assert_problem(await upload(api, content, name=name, format="raw", key=key), 422, "idempotency_key_reused")
    assert_problem(await upload(api, content, name=name + "-2", key=key), 422, "idempotency_key_reused")
    assert (await api.http.delete(f"/images/{name}")).status_code == 204


async def test_two_images_of_the_same_bytes(api: Api, fake_stack: FakeStack) -> None:
    names = [new_name("image"), new_name("image")]
    content = image_files.raw(names[0])
    checksum = image_files.checksum(content)
    for response in await asyncio.gather(*(upload(api, content, name=name) for name in names)):
        assert response.status_code == 201, response.text
    assert (await api.http.delete(f"/images/{names[0]}")).status_code == 204
    assert (await api.create(image=names[1]))["image"] == names[1]
    await api.delete_all_vms()
    assert (await api.http.delete(f"/images/{names[1]}")).status_code == 204
    await bytes_are_gone(fake_stack, checksum)


async def test_an_image_in_use_stays_and_its_bytes_leave_all_nodes(api: Api, fake_stack: FakeStack) -> None:
    name = new_name("image")
    content = image_files.raw(name)
    checksum = image_files.checksum(content)
    assert (await upload(api, content, name=name)).status_code == 201
    vms = await asyncio.gather(*(api.create(image=name) for _ in range(6)))
    assert {vm["node"] for vm in vms} == {"hv1", "hv2"}
    for world in fake_stack.worlds.values():
        assert checksum.removeprefix("sha256:") in world.names("images")
    problem = assert_problem(await api.http.delete(f"/images/{name}"), 409, "image_in_use")
    assert problem["vms"] == 6
    assert "6" in problem["detail"]
    await api.delete_all_vms()
    assert (await api.http.delete(f"/images/{name}")).status_code == 204
    assert_problem(await api.post_vm(image=name), 422, "unknown_image")
    await bytes_are_gone(fake_stack, checksum)


async def test_an_image_with_a_clone_that_no_row_speaks_of_stays(api: Api, fake_stack: FakeStack) -> None:
    name, left = new_name("image"), f"{uuid.uuid4()}-data"
    content = image_files.raw(name)
    assert (await upload(api, content, name=name)).status_code == 201
    sha256 = image_files.checksum(content).removeprefix("sha256:")
    for world in fake_stack.worlds.values():  # the deletion looks at the pool of the node that it comes to
        world.write("volumes", left, {"image": sha256})
    problem = assert_problem(await api.http.delete(f"/images/{name}"), 409, "image_in_use")
    assert (problem["vms"], problem["volumes"]) == (0, 1)
    assert (await api.get(f"/images/{name}"))["status"] == "available"
    for world in fake_stack.worlds.values():
        (world.folder / "volumes" / left).unlink()
    assert (await api.http.delete(f"/images/{name}")).status_code == 204
    await bytes_are_gone(fake_stack, sha256)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_that_is_cut_off_leaves_nothing(api: Api, fake_stack: FakeStack, chunked: bool) -> None:
    before = stored(fake_stack)
    where = urlsplit(fake_stack.url)
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1048576"
    head = (
        f"POST /api/v1/images?name=cut-off HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {fake_stack.token}"
        f"\r\nContent-Type: application/octet-stream\r\nX-Request-ID: cut-{chunked}\r\nExpect: 100-continue"
        f"\r\n{length}\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
        connection.sendall(head.encode())
        # A node asks for the body only when it reads it: from here on it must notice the end of the connection.
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
        connection.sendall((b"200\r\n" if chunked else b"") + bytes(512))

    async def noticed() -> bool:  # the internal tier may never hear of an upload that is cut off early
        return any(f"cut-{chunked}" in fake_stack.log(f"external{n}") for n in (1, 2))

    await eventually(noticed)
    assert_problem(await api.http.get("/images/cut-off"), 404, "not_found")

    async def nothing_left() -> bool:
        return stored(fake_stack) == before

    await eventually(nothing_left)
    for member in ("external1", "external2", "internal1", "internal2"):
        assert '"unhandled"' not in "".join(
            line for line in fake_stack.log(member).split("\n") if f"cut-{chunked}" in line
        )
