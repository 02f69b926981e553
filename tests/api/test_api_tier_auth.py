"""The internal tier answers only to the external one."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from support.fake_stack import FakeStack
from support.problems import assert_problem

from terrace import tier_auth
from terrace.types import Identity, ProjectId, TokenId

WHO = Identity(ProjectId(1), TokenId(1), "admin")
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
BODY = b'{"name":"forged"}'


def signed(key: bytes, method: str, target: str, body: bytes = BODY, **changed: Any) -> dict[str, str]:
    signature = tier_auth.sign(
        changed.get("secret", key),
        changed.get("who", WHO),
        now=changed.get("now", time.time()),
        method=method,
        target=target,
        body_hash=tier_auth.hash_body(body),
        key="k1",
    )
    return {**signature, "idempotency-key": "k1", "content-type": "application/json"}


def internal_routes() -> list[tuple[str, str]]:
    from internal_api.routes import health, images, networks, nodes, ssh_keys, vms

    found = []
    for part in (health, images, networks, nodes, ssh_keys, vms):
        for route in part.router.routes:
            found += [(method, route.path) for method in route.methods]  # type: ignore[attr-defined]
    return found


def concrete(path: str) -> str:
    known = {"{action}": "start", "{ref}": "1", "{name}": "hv1", "{wish}": "drain", "{sha256}": "0" * 64}
    for name, value in known.items():
        path = path.replace(name, value)
    return path


async def test_unsigned_requests_are_refused_on_every_route(fake_stack: FakeStack) -> None:
    routes = internal_routes()
    assert len(routes) > 12
    async with httpx.AsyncClient(trust_env=False) as http:
        for base in (*fake_stack.internal_urls.values(), fake_stack.internal_url):
            for method, path in routes:
                response = await http.request(method, base + concrete(path), content=b"" if method == "GET" else BODY)
                if path in OPEN:
                    assert response.status_code == 200
                else:
                    assert_problem(response, 401, "unauthenticated")
            token = {"Authorization": f"Bearer {fake_stack.token}"}
            assert_problem(await http.post(f"{base}/internal/v1/vms", content=BODY, headers=token), 401)


@pytest.mark.parametrize("route", internal_routes(), ids=lambda route: " ".join(route))
async def test_forged_signatures_are_refused(fake_stack: FakeStack, route: tuple[str, str]) -> None:
    method, path = route[0], concrete(route[1])
    if route[1] in OPEN:
        return
    secret = fake_stack.tier_secret
    target = f"{path}?name=x1" if path.endswith("/upload") else path
    other = Identity(ProjectId(2), TokenId(1), "admin")
    good = signed(secret, method, target)
    forged = {
        "another secret": signed(secret, method, target, secret=b"guess"),
        "an empty secret": signed(secret, method, target, secret=b""),
        "signed long ago": signed(secret, method, target, now=time.time() - 120),
        "signed in the future": signed(secret, method, target, now=time.time() + 120),
        "another body": signed(secret, method, target, body=b"{}"),
        "another path": signed(secret, method, target + "x"),
        "another method": signed(secret, "PUT", target),
        "another key": {**good, "idempotency-key": "k2"},
        "no key": {name: value for name, value in good.items() if name != "idempotency-key"},
        "another identity": {
            **good,
            tier_auth.IDENTITY_HEADER: signed(secret, method, target, who=other)[tier_auth.IDENTITY_HEADER],
        },
        "no identity": {name: value for name, value in good.items() if name != tier_auth.IDENTITY_HEADER},
        "no signature": {name: value for name, value in good.items() if name != tier_auth.SIGNATURE_HEADER},
        "an empty signature": {**good, tier_auth.SIGNATURE_HEADER: ""},
        "a signature that is none": {**good, tier_auth.SIGNATURE_HEADER: "é" * 64},
        "a shortened signature": {**good, tier_auth.SIGNATURE_HEADER: good[tier_auth.SIGNATURE_HEADER][:-1]},
        "another query": (good, "?x=1"),
    }
    async with httpx.AsyncClient(base_url=fake_stack.internal_urls["hv1"], trust_env=False) as http:
        for what, headers in forged.items():
            url = target
            if isinstance(headers, tuple):
                headers, url = headers[0], target + headers[1].replace("?", "&" if "?" in target else "?")
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            response = await http.request(method, url, content=BODY, headers=raw)
            assert response.status_code == 401, what
            assert_problem(response, 401, "unauthenticated")


async def test_a_true_signature_is_accepted(fake_stack: FakeStack) -> None:
    async with httpx.AsyncClient(base_url=fake_stack.internal_urls["hv1"], trust_env=False) as http:
        headers = signed(fake_stack.tier_secret, "DELETE", "/internal/v1/vms/999999")
        response = await http.request("DELETE", "/internal/v1/vms/999999", content=BODY, headers=headers)
        assert_problem(response, 404, "not_found")
