"""Operations: their steps, times and lists."""

from __future__ import annotations

from datetime import datetime

from support.api import Api
from support.problems import assert_problem

KEYS = {
    *("id", "kind", "vm", "vm_name", "image", "node", "state", "steps", "result", "error", "request_id"),
    *("created_at", "started_at", "finished_at", "volume", "snapshot"),
}
STEP_KEYS = {"name", "state", "attempts", "started_at", "finished_at", "duration_ms", "error"}


async def test_an_operation_tells_its_steps_and_their_times(api: Api) -> None:
    vm = await api.create()
    op = await api.get(f"/operations/{vm['operation']}")
    assert op.keys() == KEYS
    assert (op["kind"], op["state"], op["vm"], op["node"]) == ("vm_create", "succeeded", vm["id"], vm["node"])
    assert op["error"] is None
    assert op["created_at"] <= op["started_at"] <= op["finished_at"]
    for step in op["steps"]:
        assert step.keys() == STEP_KEYS
        assert (step["state"], step["attempts"], step["error"]) == ("done", 1, None)
        started, finished = (datetime.fromisoformat(step[key]) for key in ("started_at", "finished_at"))
        assert abs((finished - started).total_seconds() * 1000 - step["duration_ms"]) < 0.01
        assert step["started_at"].endswith("Z")


async def test_operations_of_a_vm_newest_first_also_when_it_is_gone(api: Api) -> None:
    vm, other = await api.create(), await api.create()
    await api.act(vm, "poweroff")
    await api.act(vm, "start")
    kinds = ["vm_start", "vm_poweroff", "vm_create"]
    for ref in (vm["id"], vm["name"]):
        assert [op["kind"] for op in await api.get(f"/operations?vm={ref}")] == kinds
        assert [op["kind"] for op in await api.all(f"/operations?vm={ref}&limit=1")] == kinds
    assert (await api.http.delete(f"/vms/{vm['name']}")).status_code == 204
    assert [op["kind"] for op in await api.get(f"/operations?vm={vm['id']}")] == ["vm_delete", *kinds]
    assert_problem(await api.http.get(f"/operations?vm={vm['name']}"), 404, "not_found")
    assert [op["vm"] for op in await api.get(f"/operations?vm={other['id']}")] == [other["id"]]
    assert await api.get("/operations?vm=999999999") == []


async def test_operations_by_state(api: Api) -> None:
    vm = await api.create()
    newest = await api.get("/operations?state=succeeded&limit=1")
    assert newest[0]["vm"] == vm["id"]
    assert await api.get(f"/operations?state=failed&vm={vm['id']}") == []
    assert_problem(await api.http.get("/operations?state=odd"), 422, "invalid_request")
