"""A small API that speaks the public contract over real HTTP, with faults that a test can order."""

from __future__ import annotations

import hashlib
import json
import threading

import stand_in_disks
import uvicorn
from stand_in_world import BORN, TOKEN, Json, Seen, World, accepted, missing, problem
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


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
                return JSONResponse(world.look_at(found)) if found else missing("operation", number)
            case "GET", [collection]:
                return self._page(request, self._all(collection), self.url)
            case method, ["vms", ref, "snapshots", *rest]:
                return stand_in_disks.snapshots(world, method, ref, rest, body)
            case _, ["volumes", *rest] if rest or request.method == "POST":
                return stand_in_disks.volumes(world, request.method, rest, body)
            case _, ["nodes", node, "drift", *rest] if node in world.nodes:
                return stand_in_disks.drift(world, node, rest)
            case "POST", ["vms"]:
                return self._create_vm(await request.json())
            case "POST", ["images"]:
                return self._create_image(request, body)
            case "POST", [collection]:
                return JSONResponse({"id": 1, "created_at": BORN, **await request.json()}, 201)
            case method, [collection, ref, *action]:
                found = next((one for one in self._all(collection) if ref in (one["name"], str(one.get("id")))), None)
                if found is None:
                    return missing(collection, ref)
                if method == "GET":
                    return JSONResponse(self._looked_at(found))
                return self._change(collection, found, action[-1] if action else "delete")
        return problem(405, "method_not_allowed", "Not that way.")

    def _all(self, collection: str) -> list[Json]:
        world = self.world
        if collection == "operations":
            return [
                {key: value for key, value in one.items() if not key.startswith("_")}
                for one in world.operations.values()
            ]
        named = {
            "vms": world.vms,
            "volumes": world.volumes,
            "snapshots": world.snapshots,
            "images": world.images,
            "ssh-keys": world.keys,
            "networks": world.networks,
            "nodes": world.nodes,
        }
        return list(named[collection].values())

    @staticmethod
    def _page(request: Request, items: list[Json], url: str) -> Response:
        start, size = int(request.query_params.get("cursor", 0)), int(request.query_params.get("limit", 100))
        for name, field in (("status", "status"), ("node", "node"), ("vm", "vm_name")):
            if wanted := request.query_params.get(name):
                items = [item for item in items if item[field] == wanted]
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
        for volume in wanted.get("volumes", []):
            self.world.add_volume(volume["name"], vm)
        vm.update(operation=operation["id"], _looks_left=self.world.ready_after_looks)
        return accepted({key: value for key, value in vm.items() if not key.startswith("_")}, operation)

    def _create_image(self, request: Request, body: bytes) -> Response:
        if request.headers["content-type"] == "application/octet-stream":
            checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
            query = request.query_params
            if query["checksum"] != checksum:
                return problem(422, "checksum_mismatch", "The file is not what its checksum says.")
            stored = {"id": 2, "name": query["name"], "status": "available", "format": query["format"],
                      "size_bytes": len(body), "checksum": checksum, "created_at": BORN}  # fmt: skip
            return JSONResponse(stored, 201)
        wanted = json.loads(body)
        image: Json = {"id": 3, "name": wanted["name"], "status": "importing", "created_at": BORN}
        self.world.images[image["name"]] = image
        kind = "image_capture" if "vm" in wanted else "image_import"
        vm = self.world.vms.get(wanted.get("vm"))
        done = self.world.add_operation(kind, vm, lambda: image.update(status="available"))
        return accepted(image, done)

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

        return accepted(found, self.world.add_operation(f"vm_{action}", found, done))
