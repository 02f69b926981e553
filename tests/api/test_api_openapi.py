"""The OpenAPI document: complete, and true in its examples."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from support.api import Api
from support.fake_stack import FakeStack


@pytest.fixture
async def document(api: Api, fake_stack: FakeStack) -> dict[str, Any]:
    found: dict[str, Any] = (await api.http.get(f"{fake_stack.url}/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_route_is_described(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) >= 24
    assert len({operation["operationId"] for _, operation in found}) == len(found)
    for name, operation in found:
        assert operation["summary"] and operation["tags"], name
        assert len(operation["description"]) > 10, name
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"], (name, parameter)
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)


async def test_every_route_tells_its_errors(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if "/api/" not in name:
            assert "security" not in operation, name
            continue
        assert operation["security"] == [{"token": []}], name
        statuses = set(operation["responses"])
        assert {"401", "500", "503", "504"} <= statuses, name
        assert any(status.startswith("2") for status in statuses), name
        if "{" in name:
            assert "404" in statuses, name
        if operation.get("requestBody"):
            assert {"400", "413", "415", "422"} <= statuses, name
        for status, response in operation["responses"].items():
            if status >= "400":
                assert response["content"].keys() == {"application/problem+json"}, (name, status)
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (name, status)
            elif status != "204":
                assert response["content"]["application/json"]["schema"], (name, status)
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}


def resolve(schema: Any, document: dict[str, Any]) -> Any:
    """The schema without references."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            target: Any = document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return resolve(target, document)
        return {key: resolve(value, document) for key, value in schema.items()}
    if isinstance(schema, list):
        return [resolve(item, document) for item in schema]
    return schema


async def test_examples_are_valid(document: dict[str, Any]) -> None:
    count = 0
    for name, schema in document["components"]["schemas"].items():
        whole = resolve(schema, document)
        for example in whole.get("examples", ()):
            Draft202012Validator(whole).validate(example)
            count += 1
        for field, part in whole.get("properties", {}).items():
            for example in part.get("examples", ()):
                assert Draft202012Validator(part).is_valid(example), (name, field, example)
                count += 1
    assert count > 40


async def test_answers_are_what_the_document_says(api: Api, document: dict[str, Any]) -> None:
    vm = await api.create(labels={"a": "b"})
    answers = {
        "VmOut": [vm, *await api.get("/vms")],
        "OperationOut": await api.get("/operations?limit=3"),
        "ImageOut": await api.get("/images"),
        "NetworkOut": await api.get("/networks"),
        "NodeOut": await api.get("/nodes"),
        "Problem": [(await api.http.get("/vms/none")).json(), (await api.http.post("/vms", json={})).json()],
    }
    for name, items in answers.items():
        schema = resolve(document["components"]["schemas"][name], document)
        assert items
        for item in items:
            Draft202012Validator(schema).validate(item)
            if name != "Problem":
                assert item.keys() == schema["properties"].keys(), name


async def test_bodies_take_no_null_and_nothing_unknown(document: dict[str, Any]) -> None:
    for name in ("VmCreate", "SshKeyCreate", "NetworkCreate", "ImageCreate", "ActionBody", "VmFile"):
        schema = document["components"]["schemas"][name]
        assert schema["additionalProperties"] is False, name
        for field, part in schema["properties"].items():
            assert "null" not in str(part.get("anyOf", part.get("type"))), (name, field)


async def test_the_documentation_needs_no_foreign_host(api: Api, fake_stack: FakeStack) -> None:
    page = (await api.http.get(f"{fake_stack.url}/docs")).text
    assert "swagger" in page.lower()
    for quote in ('src="', 'href="'):
        for part in page.split(quote)[1:]:
            url = part.split('"')[0]
            assert url.startswith("/"), url
            assert (await api.http.get(f"{fake_stack.url}{url}")).status_code == 200
