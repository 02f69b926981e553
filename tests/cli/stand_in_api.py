"""A small API that speaks the public contract over real HTTP, with faults that a test can order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "token-of-a-test"
BORN = "2026-01-31T12:00:00Z"
Json = dict[str, Any]
Fault = Callable[[], Response]


def problem(status: int, code: str, detail: str, **extra: Any) -> Response:
    body = {"type": "about:blank", "title": "Problem", "status": status, "code": code, "detail": detail}
    headers = {"Retry-After": str(extra.pop("retry_after"))} if "retry_after" in extra else None
    return JSONResponse(
        {**body, "request_id": "req-1", **extra}, status, headers, media_type="application/problem+json"
    )


@dataclass
class Seen:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class World:
    """What the API holds, what it was asked, and what goes wrong next."""

    vms: dict[str, Json] = field(default_factory=dict)
    images: dict[str, Json] = field(default_factory=dict)
    keys: dict[str, Json] = field(default_factory=dict)
    networks: dict[str, Json] = field(default_factory=dict)
    nodes: dict[str, Json] = field(default_factory=dict)
    operations: dict[int, Json] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    looks_until_done: int = 3
    ends: Json = field(default_factory=dict)
    ready_after_looks: int = 2

    def add_vm(self, name: str, **fields: Any) -> Json:
        number = len(self.vms) + 1
        self.vms[name] = {
            "id": number, "name": name, "status": "running", "cpu": 1, "ram_mib": 512, "disk_gib": 10,
            "image": "tiny", "ip": f"10.77.0.{9 + number}", "node": "hv1", "labels": {}, "created_at": BORN,
            "started_at": BORN, "ready_at": BORN, "operation": None, "network": "default", "error": None,
            **fields,
        }  # fmt: skip
        return self.vms[name]

    def add_operation(self, kind: str, vm: Json | None, on_done: Callable[[], None] = lambda: None) -> Json:
        steps = [
            {"name": name, "state": "pending", "attempts": 1, "duration_ms": None, "error": None}
            for name in ("claim", "volume", "start")
        ]
        number = 17 + len(self.operations)
        self.operations[number] = {
            "id": number, "kind": kind, "vm": vm and vm["id"], "vm_name": vm and vm["name"], "node": "hv1",
            "state": "running", "steps": steps, "result": None, "error": None, "request_id": "req-op",
            "created_at": BORN, "started_at": BORN, "finished_at": None, "_on_done": on_done,
        }  # fmt: skip
        return self.operations[number]

    def asked(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    def look_at(self, operation: Json) -> Json:
        """One look brings it one step further; after ``looks_until_done`` it ends as ``ends`` says."""
        operation["_looks"] = operation.get("_looks", 0) + 1
        for step in operation["steps"][: operation["_looks"]]:
            step.update(state="done", duration_ms=4.2)
        if operation["_looks"] >= self.looks_until_done and operation["state"] == "running":
            operation.update(state="succeeded", finished_at="2026-01-31T12:00:01.200Z")
            operation.update(self.ends)
            if operation["state"] == "succeeded":
                operation["_on_done"]()
        return {key: value for key, value in operation.items() if not key.startswith("_")}


class StandIn:
    """Serves a World on a free loopback port, from a thread."""

    def __init__(self) -> None:
        self.world = World()
        routes = [Route("/api/v1/{path:path}", self._answer, methods=["GET", "POST", "DELETE"])]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            assert self._thread.is_alive(), "the stand-in did not start"
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    async def _answer(self, request: Request) -> Response:
        world, path = self.world, request.path_params["path"]
        body = await request.body()
        world.seen.append(Seen(request.method, path, request.url.query, dict(request.headers), body))
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "The token is not known.")
        if world.faults:
            return world.faults.pop(0)()
        match request.method, path.split("/"):
            case "GET", ["operations", number]:
                found = world.operations.get(int(number))
                return JSONResponse(world.look_at(found)) if found else _missing("operation", number)
            case "GET", [collection]:
                return self._page(request, self._all(collection), self.url)
            case "POST", ["vms"]:
                return self._create_vm(await request.json())
            case "POST", ["images"]:
                return self._create_image(request, body)
            case "POST", [collection]:
                return JSONResponse({"id": 1, "created_at": BORN, **await request.json()}, 201)
            case method, [collection, ref, *action]:
                found = next((one for one in self._all(collection) if ref in (one["name"], str(one.get("id")))), None)
                if found is None:
                    return _missing(collection, ref)
                if method == "GET":
                    return JSONResponse(self._looked_at(found))
                return self._change(collection, found, action[-1] if action else "delete")
        return problem(405, "method_not_allowed", "Not that way.")

    def _all(self, collection: str) -> list[Json]:
        world = self.world
        named = {"vms": world.vms, "images": world.images, "ssh-keys": world.keys, "networks": world.networks}
        if collection == "operations":
            return [
                {key: value for key, value in one.items() if not key.startswith("_")}
                for one in world.operations.values()
            ]
        return list({**named, "nodes": world.nodes}[collection].values())

    @staticmethod
    def _page(request: Request, items: list[Json], url: str) -> Response:
        start, size = int(request.query_params.get("cursor", 0)), int(request.query_params.get("limit", 100))
        for name in ("status", "node"):
            if wanted := request.query_params.get(name):
                items = [item for item in items if item[name] == wanted]
        headers = {}
        if start + size < len(items):
            # another host than the one that was asked: only the query may be believed
            headers["Link"] = f'<http://elsewhere.invalid/api/v1/x?limit={size}&cursor={start + size}>; rel="next"'
        return JSONResponse(items[start : start + size], headers=headers)

    def _looked_at(self, found: Json) -> Json:
        if "_looks_left" in found:
            found["_looks_left"] -= 1
            if found["_looks_left"] <= 0:
                found["ready_at"] = BORN
        return {key: value for key, value in found.items() if not key.startswith("_")}

    def _create_vm(self, wanted: Json) -> Response:
        if wanted["name"] in self.world.vms:
            return problem(409, "name_taken", f"A VM named {wanted['name']} exists in this project.")
        asked = {key: value for key, value in wanted.items() if key in ("name", "cpu", "ram_mib", "disk_gib", "labels")}
        vm = self.world.add_vm(asked.pop("name"), status="creating", ready_at=None, started_at=None, **asked)
        operation = self.world.add_operation("vm_create", vm, lambda: vm.update(status="running", started_at=BORN))
        vm.update(operation=operation["id"], _looks_left=self.world.ready_after_looks)
        return self._accepted({key: value for key, value in vm.items() if not key.startswith("_")}, operation)

    def _create_image(self, request: Request, body: bytes) -> Response:
        if request.headers["content-type"] == "application/octet-stream":
            checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
            query = request.query_params
            if query["checksum"] != checksum:
                return problem(422, "checksum_mismatch", "The file is not what its checksum says.")
            image = {"id": 2, "name": query["name"], "status": "available", "format": query["format"],
                     "size_bytes": len(body), "checksum": checksum, "created_at": BORN}  # fmt: skip
            return JSONResponse(image, 201)
        image = {"id": 3, "name": "fetched", "status": "importing", "created_at": BORN}
        self.world.images["fetched"] = image
        done = self.world.add_operation("image_import", None, lambda: image.update(status="available"))
        return self._accepted(image, done)

    def _change(self, collection: str, found: Json, action: str) -> Response:
        if collection == "nodes":
            found["state"] = {"drain": "draining", "undrain": "active"}.get(action, action)
            return JSONResponse(found)
        if collection != "vms":
            return Response(status_code=204)
        ends_as = {"stop": "stopped", "poweroff": "stopped"}.get(action, "running")
        if found["status"] == ends_as and action in ("start", "stop", "poweroff"):
            return JSONResponse(found)

        def done() -> None:
            if action == "delete":
                del self.world.vms[found["name"]]
            found["status"] = ends_as

        return self._accepted(found, self.world.add_operation(f"vm_{action}", found, done))

    @staticmethod
    def _accepted(body: Json, operation: Json) -> Response:
        return JSONResponse(body, 202, {"Location": f"/api/v1/operations/{operation['id']}"})


def _missing(what: str, ref: str) -> Response:
    return problem(404, "not_found", f"There is no {what} '{ref}'.")


def cut() -> Response:
    """A fault: the connection is closed before the answer is complete."""

    class Cut(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            # the server closes the connection on an application that ends in the middle of an answer
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})

    return Cut()
