"""No request without a token, but health and docs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from support.api import Api
from support.fake_stack import FakeStack
from support.polling import eventually
from support.problems import assert_problem

from terrace.bootstrap import hash_token, new_token
from terrace.stack import postgres

OPEN = {"/healthz", "/readyz"}


def client(stack: FakeStack, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20, trust_env=False)


async def routes(stack: FakeStack) -> list[tuple[str, str]]:
    async with client(stack) as http:
        document = (await http.get("/openapi.json")).json()
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


async def test_every_route_of_the_document_asks_for_a_token(fake_stack: FakeStack) -> None:
    found = await routes(fake_stack)
    assert len(found) > 20
    async with client(fake_stack) as http:
        for method, path in found:
            for body in (b"", b'{"name":"x1"}', b"{not json", b"x" * 300_000):
                url = path.replace("{action}", "start").replace("{ref}", "1").replace("{name}", "hv1")
                headers = {"Content-Type": "application/json"}
                if method == "GET" and body:
                    continue
                response = await http.request(method, url, content=body, headers=headers)
                if path in OPEN:
                    assert response.status_code == 200
                elif len(body) > 262_144:
                    assert response.status_code in (401, 413)
                else:
                    assert_problem(response, 401, "unauthenticated")


async def test_uploads_ask_for_a_token(fake_stack: FakeStack) -> None:
    async with client(fake_stack) as http:
        headers = {"Content-Type": "application/octet-stream"}
        assert_problem(await http.post("/api/v1/images?name=x1", content=b"x" * 512, headers=headers), 401)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/healthz", "/readyz"])
async def test_what_is_open(fake_stack: FakeStack, path: str) -> None:
    async with client(fake_stack) as http:
        assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        *(
            "",
            "Bearer",
            "Bearer ",
            "bearer x",
            "Bearer  ",
            "Basic {token}",
            "{token}",
            "Token {token}",
            "Bearer {token}x",
        ),
        *("Bearer {half}", "Bearer x{token}", "Bearer {token} {token}", "Bearer {token},", "Bearer " + "x" * 256),
        *("Bearer " + "x" * 8000, "Bearer " + "x" * 60_000, "Bearer \xff\xfe", "Bearer null", "Bearer ' or 1=1 --"),
    ],
)
async def test_tokens_that_are_not_known(fake_stack: FakeStack, authorization: str) -> None:
    token = fake_stack.token
    value = authorization.format(token=token, half=token[: len(token) // 2]).encode("latin-1").strip()
    async with client(fake_stack) as http:
        response = await http.get("/api/v1/vms", headers=[(b"Authorization", value)])
        problem = assert_problem(response, 401, "unauthenticated")
        assert token not in str(problem)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_any_case(fake_stack: FakeStack, scheme: str) -> None:
    async with client(fake_stack, Authorization=f"{scheme} {fake_stack.token}") as http:
        assert (await http.get("/api/v1/vms")).status_code == 200


async def test_a_token_in_the_query_is_none(fake_stack: FakeStack) -> None:
    async with client(fake_stack) as http:
        assert_problem(
            await http.get("/api/v1/vms", params={"token": fake_stack.token, "access_token": fake_stack.token}), 401
        )


async def made(database: Any, role: str, **columns: Any) -> str:
    token = new_token()
    project = await database.fetchval("insert into projects (name) values ($1) returning id", f"p-{token[-8:]}")
    await database.execute(
        "insert into tokens (project_id, token_hash, role, expires_at) values ($1, $2, $3, $4)",
        project, hash_token(token), role, columns.get("expires_at"),
    )  # fmt: skip
    return token


async def test_a_revoked_token_is_refused_at_once(fake_stack: FakeStack, database: Any) -> None:
    token = await made(database, "member")
    async with client(fake_stack, Authorization=f"Bearer {token}") as http:
        for _ in range(4):
            assert (await http.get("/api/v1/vms")).status_code == 200
        await database.execute("update tokens set revoked_at = now() where token_hash = $1", hash_token(token))

        async def is_refused() -> bool:
            found = [(await http.get("/api/v1/vms")).status_code for _ in range(4)]
            return found == [401] * 4

        await eventually(is_refused, within_s=2)


async def test_an_expired_token_is_refused(fake_stack: FakeStack, database: Any) -> None:
    expired = await made(database, "member", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    soon = await made(database, "member", expires_at=datetime.now(UTC) + timedelta(seconds=1.5))
    async with client(fake_stack) as http:
        assert_problem(await http.get("/api/v1/vms", headers={"Authorization": f"Bearer {expired}"}), 401)
        assert (await http.get("/api/v1/vms", headers={"Authorization": f"Bearer {soon}"})).status_code == 200

        async def is_refused() -> bool:
            return (await http.get("/api/v1/vms", headers={"Authorization": f"Bearer {soon}"})).status_code == 401

        await eventually(is_refused, within_s=4)


async def test_projects_do_not_see_each_other(api: Api, fake_stack: FakeStack, database: Any) -> None:
    vm = await api.create()
    token = await made(database, "owner")
    async with Api.open(fake_stack.url, token) as other:
        assert await other.get("/vms") == await other.get("/operations") == await other.get("/images") == []
        for ref in (vm["id"], vm["name"]):
            assert_problem(await other.http.get(f"/vms/{ref}"), 404, "not_found")
            assert_problem(await other.http.delete(f"/vms/{ref}"), 404, "not_found")
            assert_problem(await other.http.post(f"/vms/{ref}/actions/stop"), 404, "not_found")
        assert_problem(await other.http.get(f"/operations/{vm['operation']}"), 404, "not_found")
        assert await other.get(f"/operations?vm={vm['id']}") == []
        assert_problem(await other.post_vm(), 422, "unknown_image")
        assert_problem(await other.http.delete("/images/tiny"), 404, "not_found")
    assert (await api.get(f"/vms/{vm['id']}"))["status"] == "running"


async def test_only_administrators_see_nodes_and_change_networks(fake_stack: FakeStack, database: Any) -> None:
    token = await made(database, "member")
    async with Api.open(fake_stack.url, token) as member:
        assert_problem(await member.http.get("/nodes"), 403, "forbidden")
        assert_problem(await member.http.get("/nodes/hv1"), 403, "forbidden")
        assert_problem(await member.http.post("/nodes/hv1/drain"), 403, "forbidden")
        network = {"name": "mine", "bridge": "br0", "dhcp": "external"}
        assert_problem(await member.http.post("/networks", json=network), 403, "forbidden")
        assert_problem(await member.http.delete("/networks/default"), 403, "forbidden")
        assert (await member.http.get("/networks")).status_code == 200


async def test_the_external_tier_can_not_write(fake_stack: FakeStack) -> None:
    """With the very credentials of an external node."""
    reader = await fake_stack.connect(postgres.READER)
    try:
        await reader.execute("set default_transaction_read_only = off")  # what every client may do
        tables = [row[0] for row in await reader.fetch("select tablename from pg_tables where schemaname = 'public'")]
        assert {"vms", "operations", "tokens", "nodes", "idempotency_keys"} <= set(tables)
        for table in tables:
            for statement in (
                f"delete from {table}",
                f"truncate {table}",
                f"drop table {table}",
                f"lock {table} in exclusive mode",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with reader.transaction():
                        await reader.execute(statement)
        for statement in (
            "insert into projects (name) values ('mine')",
            "update tokens set role = 'admin'",
            "update nodes set state = 'active'",
            "create table mine (n int)",
            "create temporary table mine (n int)",
            "select nextval('vms_id_seq')",
            "select setval('vms_id_seq', 1)",
            "set role terrace_owner",
            "select pg_read_file('/etc/passwd')",
            "copy (select 1) to program 'true'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.execute(statement)
        assert await reader.fetchval("select count(*) from vms") == 0
    finally:
        await reader.close()


async def test_headers_of_the_tiers_are_stripped_from_clients(api: Api, fake_stack: FakeStack, database: Any) -> None:
    forged = {
        "X-Terrace-Identity": '[1,1,"admin",99999999999]',
        "X-Terrace-Signature": "0" * 64,
        "X-Terrace-Node": "hv9",
        "X-Terrace-Owner-Only": "1",
    }
    async with client(fake_stack, **forged) as http:
        assert_problem(await http.get("/api/v1/vms"), 401, "unauthenticated")
    for _ in range(4):
        response = await api.post_vm(headers=forged)
        assert response.status_code == 201
        assert not [name for name in response.headers if name.startswith("x-terrace")]
