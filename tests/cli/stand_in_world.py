"""What the stand-in API holds, what it was asked, and what goes wrong next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

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
    volumes: dict[str, Json] = field(default_factory=dict)
    snapshots: dict[str, Json] = field(default_factory=dict)
    differences: list[Json] = field(default_factory=list)
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
            "volumes": [], **fields,
        }  # fmt: skip
        return self.vms[name]

    def add_volume(self, name: str, vm: Json | None = None, **fields: Any) -> Json:
        number = len(self.volumes) + 1
        self.volumes[name] = {
            "id": number, "name": name, "status": "available", "size_gib": 20, "vm": None, "vm_name": None,
            "device": None, "pool": None, "node": None, "delete_with_vm": False, "created_at": BORN,
            "operation": None, "error": None, **fields,
        }  # fmt: skip
        if vm is not None:
            self.plug(self.volumes[name], vm)
        return self.volumes[name]

    def add_snapshot(self, name: str, vm: Json, **fields: Any) -> Json:
        number = len(self.snapshots) + 1
        self.snapshots[name] = {
            "id": number, "name": name, "status": "available", "consistency": "filesystem", "vm": vm["id"],
            "vm_name": vm["name"], "disks": [{"volume": None, "size_gib": vm["disk_gib"]}], "created_at": BORN,
            "operation": None, **fields,
        }  # fmt: skip
        return self.snapshots[name]

    @staticmethod
    def plug(volume: Json, vm: Json) -> None:
        device = f"/dev/disk/by-id/virtio-volume-{volume['id']}"
        volume.update(status="in_use", vm=vm["id"], vm_name=vm["name"], node=vm["node"], pool="dir", device=device)
        vm["volumes"].append({"id": volume["id"], "name": volume["name"], "size_gib": 20, "device": device})

    def find_busy(self, vm_id: int) -> Json | None:
        """The operation that is under way on a VM."""
        running = (one for one in self.operations.values() if one["state"] == "running")
        return next((one for one in running if one["vm"] == vm_id), None)

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


def accepted(body: Json, operation: Json) -> Response:
    return JSONResponse(body, 202, {"Location": f"/api/v1/operations/{operation['id']}"})


def missing(what: str, ref: str) -> Response:
    return problem(404, "not_found", f"There is no {what} '{ref}'.")


def cut() -> Response:
    """A fault: the connection is closed before the answer is complete."""

    class Cut(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            # the server closes the connection on an application that ends in the middle of an answer
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})

    return Cut()
