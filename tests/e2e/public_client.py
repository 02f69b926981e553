"""The public API as tests speak it."""

from __future__ import annotations

import time
from typing import Any

import httpx
from polling import until

Json = dict[str, Any]


class Api:
    """Calls with the administrator's token; paths start below /api/v1."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self._client = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=75, trust_env=False
        )

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Any answer; ``headers`` are written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.request(method, path, json=body, headers=named)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, name: str, status: int = 201, **fields: Any) -> Json:
        """The VM in the answer."""
        prefer = "respond-async" if status == 202 else "wait=60"
        answer = self.call("POST", "/vms", {"name": name, "cpu": 1, "ram_mib": 128, **fields}, Prefer=prefer)
        assert answer.status_code == status, answer.text
        made: Json = answer.json()
        return made

    def vm(self, ref: str | int) -> Json:
        found: Json = self.get(f"/vms/{ref}")
        return found

    def act(self, ref: str | int, action: str, body: Json | None = None) -> tuple[Json, Json, float]:
        """The VM in the answer, the operation behind it, and how many seconds it took."""
        began = time.monotonic()
        answer = self.call("POST", f"/vms/{ref}/actions/{action}", body, Prefer="wait=60")
        took = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        vm = answer.json()
        return vm, self.operation(vm["operation"]), took

    def begin(self, ref: str | int, action: str, body: Json | None = None) -> Json:
        """The operation that an action begins, not waited for."""
        answer = self.call("POST", f"/vms/{ref}/actions/{action}", body, Prefer="respond-async")
        assert answer.status_code == 202, answer.text
        return self.operation(answer.headers["location"].rpartition("/")[2])

    def delete(self, ref: str | int) -> None:
        answer = self.call("DELETE", f"/vms/{ref}", Prefer="wait=60")
        assert answer.status_code == 204, answer.text

    def operation(self, ref: str | int) -> Json:
        found: Json = self.get(f"/operations/{ref}")
        return found

    def wait_operation(self, ref: str | int, timeout_s: float = 60.0) -> Json:
        """The operation once it has ended."""

        def look() -> Json | None:
            found = self.operation(ref)
            return None if found["state"] in ("pending", "running", "undoing") else found

        return until(look, f"operation {ref} ends", timeout_s)

    def wait_vm(self, ref: str | int, timeout_s: float, **wanted: Any) -> Json:
        """The VM once all these fields are as wanted."""

        def look() -> Json | None:
            found = self.vm(ref)
            return found if all(found[name] == value for name, value in wanted.items()) else None

        return until(look, f"VM {ref} has {wanted}", timeout_s)

    def wait_ready(self, ref: str | int, timeout_s: float = 150.0) -> Json:
        return until(lambda: vm if (vm := self.vm(ref))["ready_at"] else None, f"VM {ref} answers", timeout_s)
