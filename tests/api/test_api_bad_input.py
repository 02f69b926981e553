"""Bad input: each a problem with a stable code and a sentence that helps, and nothing left behind."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.api import Api
from support.fake_stack import FakeStack
from support.problems import assert_problem

TABLES = (
    "vms",
    "operations",
    "idempotency_keys",
    "ssh_keys",
    "images",
    "networks",
    "addresses where vm_id is not null",
)


async def everything(stack: FakeStack, database: Any) -> dict[str, Any]:
    """All that bad input could have left somewhere."""
    rows = {table: await database.fetchval(f"select count(*) from {table}") for table in TABLES}
    claimed = await database.fetchrow("select sum(cpu_claimed), sum(ram_claimed_mib) from nodes")
    disks = await database.fetchval("select sum(claimed_gib) from pools")
    worlds = {
        (name, kind): world.names(kind)
        for name, world in stack.worlds.items()
        for kind in ("domains", "volumes", "blobs", "images", "image-files")
    }
    return {**rows, "claimed": tuple(claimed), "disks": disks, **worlds}


@pytest.fixture
async def nothing_changes(api: Api, fake_stack: FakeStack, database: Any) -> AsyncIterator[None]:
    before = await everything(fake_stack, database)
    yield
    assert await everything(fake_stack, database) == before
    assert before["claimed"] == (0, 0)
    assert before["disks"] == 0


pytestmark = pytest.mark.usefixtures("nothing_changes")

LONG = "x" * 65_537
CREATES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no name": ({}, 422, "invalid_request"),
    "unknown field": ({"name": "x1", "colour": "red"}, 422, "invalid_request"),
    "unknown field, nearly known": ({"name": "x1", "ram": 512}, 422, "invalid_request"),
    "field of the answer": ({"name": "x1", "id": 5}, 422, "invalid_request"),
    "unknown field with NUL": ({"name": "x1", "a\x00b": 1}, 422, "invalid_request"),
    "unknown field of 60 KB": ({"name": "x1", "k" * 60_000: 1}, 422, "invalid_request"),
    "cpu too small": ({"name": "x1", "cpu": 0}, 422, "invalid_request"),
    "cpu too large": ({"name": "x1", "cpu": 513}, 422, "invalid_request"),
    "ram too small": ({"name": "x1", "ram_mib": 63}, 422, "invalid_request"),
    "ram larger than a node": ({"name": "x1", "ram_mib": 1_000_000}, 422, "size_out_of_range"),
    "disk too small": ({"name": "x1", "disk_gib": 0}, 422, "invalid_request"),
    "disk too large": ({"name": "x1", "disk_gib": 65_537}, 422, "invalid_request"),
    "unknown image": ({"name": "x1", "image": "windows"}, 422, "unknown_image"),
    "unknown image id": ({"name": "x1", "image": "99999"}, 422, "unknown_image"),
    "huge image id": ({"name": "x1", "image": "9" * 63}, 422, "unknown_image"),
    "image with blanks": ({"name": "x1", "image": "Debian 12"}, 422, "unknown_image"),
    "image empty": ({"name": "x1", "image": ""}, 422, "invalid_request"),
    "image with NUL": ({"name": "x1", "image": "ti\x00ny"}, 422, "invalid_request"),
    "image long": ({"name": "x1", "image": "i" * 64}, 422, "invalid_request"),
    "network with NUL": ({"name": "x1", "network": "\x00"}, 422, "invalid_request"),
    "unknown network": ({"name": "x1", "network": "moon"}, 422, "unknown_network"),
    "unknown key": ({"name": "x1", "ssh_keys": ["nobody"]}, 422, "unknown_ssh_key"),
    "empty key": ({"name": "x1", "ssh_keys": [""]}, 422, "unknown_ssh_key"),
    "key with NUL": ({"name": "x1", "ssh_keys": ["a\x00"]}, 422, "invalid_request"),
    "malformed key": ({"name": "x1", "ssh_keys": ["ssh-ed25519 AAAA"]}, 422, "invalid_ssh_key"),
    "key with newline": ({"name": "x1", "ssh_keys": ["ssh-ed25519 AAAA\nssh-rsa AAAA"]}, 422, "invalid_ssh_key"),
    "password in clear": ({"name": "x1", "password_hash": "hunter2"}, 422, "invalid_request"),
    "password with newline": ({"name": "x1", "password_hash": "$6$salt$" + "a" * 86 + "\n"}, 422, "invalid_request"),
    "user data too long": ({"name": "x1", "user_data": "#!" + LONG}, 422, "invalid_user_data"),
    "user data too long in bytes": ({"name": "x1", "user_data": "#!" + "ü" * 32_768}, 422, "invalid_user_data"),
    "user data of no kind": ({"name": "x1", "user_data": "echo hi"}, 422, "invalid_user_data"),
    "user data empty": ({"name": "x1", "user_data": ""}, 422, "invalid_user_data"),
    "user data broken": ({"name": "x1", "user_data": "#cloud-config\n{a: [}"}, 422, "invalid_user_data"),
    "user data a list": ({"name": "x1", "user_data": "#cloud-config\n- a"}, 422, "invalid_user_data"),
    "user data with NUL": ({"name": "x1", "user_data": "#!/bin/sh\n\x00"}, 422, "invalid_user_data"),
    "user data of tags": (
        {"name": "x1", "user_data": "#cloud-config\na: !!python/object:os.system x"},
        422,
        "invalid_user_data",
    ),
    "user data that explodes": (
        {
            "name": "x1",
            "user_data": "#cloud-config\na: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        },
        422,
        "invalid_user_data",
    ),
    "file without path": ({"name": "x1", "files": [{"content": ""}]}, 422, "invalid_request"),
    "file not absolute": ({"name": "x1", "files": [{"path": "etc/x", "content": ""}]}, 422, "invalid_request"),
    "file upwards": ({"name": "x1", "files": [{"path": "/a/../b", "content": ""}]}, 422, "invalid_request"),
    "file a folder": ({"name": "x1", "files": [{"path": "/a/", "content": ""}]}, 422, "invalid_request"),
    "file with NUL": ({"name": "x1", "files": [{"path": "/a\x00", "content": ""}]}, 422, "invalid_request"),
    "file of NUL": ({"name": "x1", "files": [{"path": "/a", "content": "\x00"}]}, 422, "invalid_request"),
    "file with newline": ({"name": "x1", "files": [{"path": "/a\n", "content": ""}]}, 422, "invalid_request"),
    "file mode": ({"name": "x1", "files": [{"path": "/a", "content": "", "mode": "rwx"}]}, 422, "invalid_request"),
    "file field": ({"name": "x1", "files": [{"path": "/a", "content": "", "owner": "me"}]}, 422, "invalid_request"),
    "files too large": ({"name": "x1", "files": [{"path": "/a", "content": LONG}]}, 422, "invalid_request"),
    "files too many": (
        {"name": "x1", "files": [{"path": f"/{n}", "content": ""} for n in range(65)]},
        422,
        "invalid_request",
    ),
    "label key": ({"name": "x1", "labels": {"a b": "c"}}, 422, "invalid_request"),
    "label key empty": ({"name": "x1", "labels": {"": "c"}}, 422, "invalid_request"),
    "label key with newline": ({"name": "x1", "labels": {"a\n": "c"}}, 422, "invalid_request"),
    "label value": ({"name": "x1", "labels": {"a": "b c"}}, 422, "invalid_request"),
    "label with NUL": ({"name": "x1", "labels": {"a": "\x00"}}, 422, "invalid_request"),
    "label too long": ({"name": "x1", "labels": {"a": "v" * 64}}, 422, "invalid_request"),
    "labels too many": ({"name": "x1", "labels": {f"k{n}": "" for n in range(65)}}, 422, "invalid_request"),
}


@pytest.mark.parametrize("what", CREATES)
async def test_creates_that_are_refused(api: Api, what: str) -> None:
    body, status, code = CREATES[what]
    assert_problem(await api.http.post("/vms", json=body), status, code)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-", "a-", "-a", "A", "aB", "a_b", "a.b", "a b", " a", "a ", "1", "123", "0", "a" * 64, "a" * 10_000),
        *("ü", "名前", "a\n", "\na", "a\x00", "a/b", "..", "a%20b", "😀", "a\u200b", "\u0430"),
    ],
)
async def test_names_that_are_no_labels(api: Api, name: str) -> None:
    problem = assert_problem(await api.http.post("/vms", json={"name": name}), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "name"


BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "invalid_request"),
    "blank": (b" ", 400, "bad_json"),
    "cut off": (b'{"name": "x1"', 400, "bad_json"),
    "text": (b"name=x1", 400, "bad_json"),
    "single quotes": (b"{'name': 'x1'}", 400, "bad_json"),
    "trailing comma": (b'{"name": "x1",}', 400, "bad_json"),
    "two documents": (b'{"name": "x1"}{"name": "x2"}', 400, "bad_json"),
    "NaN": (b'{"name": "x1", "cpu": NaN}', 400, "bad_json"),
    "Infinity": (b'{"name": "x1", "cpu": Infinity}', 400, "bad_json"),
    "minus infinity": (b'{"name": "x1", "cpu": -Infinity}', 400, "bad_json"),
    "1e400": (b'{"name": "x1", "cpu": 1e400}', 400, "bad_json"),
    "leading zero": (b'{"name": "x1", "cpu": 01}', 400, "bad_json"),
    "a key twice": (b'{"name": "x1", "name": "x2"}', 400, "bad_json"),
    "a key twice inside": (b'{"name": "x1", "labels": {"a": "1", "a": "2"}}', 400, "bad_json"),
    "invalid UTF-8": (b'{"name": "x\xff"}', 400, "bad_json"),
    "overlong UTF-8": (b'{"name": "\xc0\xaf"}', 400, "bad_json"),
    "surrogate in UTF-8": (b'{"name": "\xed\xa0\x80"}', 400, "bad_json"),
    "UTF-16": ('{"name": "x1"}'.encode("utf-16"), 400, "bad_json"),
    "lone surrogate": (b'{"name": "x1", "user_data": "#!\\ud800"}', 400, "bad_json"),
    "lone surrogate in a key": (b'{"name": "x1", "\\udfff": 1}', 400, "bad_json"),
    "control character": (b'{"name": "x1", "user_data": "#!\n"}', 400, "bad_json"),
    "deep lists": (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_json"),
    "deep objects": (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, 400, "bad_json"),
    "not so deep": (b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "invalid_request"),
    "huge integer": (b'{"name": "x1", "cpu": ' + b"9" * 50 + b"}", 422, "invalid_request"),
    "5000 digits": (b'{"name": "x1", "cpu": ' + b"9" * 5000 + b"}", 400, "bad_json"),
    "a list": (b'[{"name": "x1"}]', 422, "invalid_request"),
    "text in JSON": (b'"x1"', 422, "invalid_request"),
    "a number": (b"5", 422, "invalid_request"),
    "true": (b"true", 422, "invalid_request"),
    "null": (b"null", 422, "invalid_request"),
    "an empty list": (b"[]", 422, "invalid_request"),
}


@pytest.mark.parametrize("path", ["/vms", "/ssh-keys", "/networks", "/images"])
@pytest.mark.parametrize("what", BODIES)
async def test_bodies_that_are_no_json_objects(api: Api, what: str, path: str) -> None:
    body, status, code = BODIES[what]
    response = await api.http.post(path, content=body, headers={"Content-Type": "application/json"})
    if (path, status) in (("/images", 422), ("/ssh-keys", 422), ("/networks", 422)) or what in ("nothing",):
        assert response.status_code in (400, 422), response.text
        assert_problem(response, response.status_code)
    else:
        assert_problem(response, status, code)


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/xml", "x", "json"])
@pytest.mark.parametrize("path", ["/vms", "/ssh-keys", "/networks"])
async def test_bodies_of_other_types(api: Api, path: str, kind: str) -> None:
    response = await api.http.post(path, content=b'{"name":"X"}', headers={"Content-Type": kind})
    assert "application/json" in assert_problem(response, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize("size", [262_145, 320_000, 400_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/vms", "/images", "/vms/1/actions/stop"])
async def test_bodies_over_the_limit(api: Api, path: str, size: int, chunked: bool) -> None:
    body = json.dumps({"name": "x1", "user_data": "#!"}).encode().ljust(size)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 65_536):
            yield body[start : start + 65_536]

    headers = {"Content-Type": "application/json"}
    response = await api.http.post(path, content=chunks() if chunked else body, headers=headers)
    assert "262144" in assert_problem(response, 413, "payload_too_large")["detail"]


async def test_a_body_at_the_limit_is_read(api: Api) -> None:
    body = json.dumps({"name": "X"}).encode().ljust(262_144)
    response = await api.http.post("/vms", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/", 404, "not_found"),
        ("GET", "/api/v1/vms/", 404, "not_found"),
        ("GET", "/api/v2/vms", 404, "not_found"),
        ("GET", "/internal/v1/vms", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1/vms/1/actions/start", 405, "method_not_allowed"),
        ("PUT", "/api/v1/vms", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/vms/1", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/vms", 405, "method_not_allowed"),
        ("POST", "/api/v1/operations", 405, "method_not_allowed"),
        ("TRACE", "/api/v1/vms", 405, "method_not_allowed"),
        ("OPTIONS", "/api/v1/vms", 405, "method_not_allowed"),
    ],
)
async def test_routes_and_methods_that_are_none(
    api: Api, fake_stack: FakeStack, method: str, path: str, status: int, code: str
) -> None:
    response = await api.http.request(method, fake_stack.url + path)
    assert_problem(response, status, code)
    if status == 405 and path == "/api/v1/vms":
        assert response.headers["allow"] == "GET, POST"


RAW = {
    "not HTTP": (b"hello\r\n\r\n", 400),
    "no version": (b"GET /api/v1/vms\r\n\r\n", 400),
    "NUL in a header": (b"GET /api/v1/vms HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: a\x00b\r\n\r\n", 400),
    "unknown method": (b"BREW /api/v1/vms HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
    "bytes in the path": (b"GET /api/v1/vms/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two lengths": (b"POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length that is none": (b"POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", 400),
    "a negative length": (b"POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "broken chunks": (b"POST /api/v1/vms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a strange host": (
        b"GET /api/v1/vms HTTP/1.1\r\nHost: [\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n",
        200,
    ),
    "a strange host, and nothing there": (b"GET /x HTTP/1.1\r\nHost: [::\r\nConnection: close\r\n\r\n", 404),
    "an absolute URL": (
        b"GET http://x/api/v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n",
        200,
    ),
    "headers of 500 KB": (b"GET /api/v1/vms HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 500_000 + b"\r\n\r\n", 400),
    "200 headers": (
        b"GET /api/v1/vms HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        400,
    ),
}


@pytest.mark.parametrize("what", RAW)
async def test_requests_that_are_not_quite_http(fake_stack: FakeStack, what: str) -> None:
    request, wanted = RAW[what]
    where = urlsplit(fake_stack.url)
    with socket.create_connection((where.hostname, where.port), timeout=15) as connection:
        connection.settimeout(15)
        answer = b""
        with suppress(ConnectionError):  # answered before it was read whole
            connection.sendall(request.replace(b"TOKEN", fake_stack.token.encode()))
        with suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status == wanted, answer[:500]
    # what HAProxy can't parse at all it answers with a text of its own, which no setting changes
    if status >= 400 and b"<html>" not in body:
        assert b"content-type: application/problem+json" in head.lower()
        assert json.loads(body)["status"] == status
