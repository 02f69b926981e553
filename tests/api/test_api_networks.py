"""Networks: bridges made known, with our addresses or somebody else's."""

from __future__ import annotations

from typing import Any

import pytest
from support.api import Api, new_name
from support.problems import assert_problem


async def test_a_network_of_our_own(api: Api) -> None:
    name = new_name("net")
    body = {"name": name, "bridge": "br7", "subnet": "10.79.0.0/29", "dns": ["9.9.9.9", "1.1.1.1"]}
    response = await api.http.post("/networks", json=body)
    assert response.status_code == 201, response.text
    network = response.json()
    assert network.keys() == {"id", "name", "bridge", "dhcp", "subnet", "gateway", "dns", "created_at"}
    assert (network["dhcp"], network["subnet"], network["gateway"]) == ("terrace", "10.79.0.0/29", "10.79.0.1")
    assert await api.get(f"/networks/{name}") == await api.get(f"/networks/{network['id']}") == network
    assert network in await api.get("/networks")
    vms = [await api.create(network=name) for _ in range(5)]
    assert sorted(vm["ip"] for vm in vms) == [f"10.79.0.{n}" for n in range(2, 7)]
    assert_problem(await api.post_vm(network=name), 507, "no_address")
    assert_problem(await api.http.delete(f"/networks/{name}"), 409, "network_in_use")
    await api.delete_all_vms()
    assert (await api.create(network=str(network["id"])))["network"] == name
    await api.delete_all_vms()
    assert (await api.http.delete(f"/networks/{name}")).status_code == 204
    assert_problem(await api.http.get(f"/networks/{name}"), 404, "not_found")


async def test_a_network_with_a_foreign_dhcp_server(api: Api) -> None:
    name = new_name("net")
    response = await api.http.post("/networks", json={"name": name, "bridge": "br8", "dhcp": "external"})
    assert response.status_code == 201
    assert (response.json()["subnet"], response.json()["gateway"], response.json()["dns"]) == (None, None, [])
    assert (await api.create(network=name))["ip"] is None
    await api.delete_all_vms()
    assert (await api.http.delete(f"/networks/{name}")).status_code == 204


@pytest.mark.parametrize(
    "wrong",
    [
        {"subnet": None},
        {"subnet": "10.79.0.0/30"},
        {"subnet": "10.0.0.0/8"},
        {"subnet": "10.79.0.1/24"},
        {"subnet": "fd00::/64"},
        {"subnet": "10.79.0.0/24\x00"},
        {"subnet": "net"},
        {"gateway": "10.80.0.1"},
        {"gateway": "10.79.0.0"},
        {"gateway": "10.79.0.255"},
        {"gateway": "x"},
        {"dns": ["fe80::1%\x00"]},
        {"dns": ["one.one"]},
        {"dns": ["1.1.1.1"] * 4},
        {"dns": "1.1.1.1"},
        {"bridge": ""},
        {"bridge": "br 0"},
        {"bridge": "b" * 16},
        {"bridge": "../br"},
        {"bridge": "br0\n"},
        {"dhcp": "none"},
        {"dhcp": "external"},
        {"name": "Net"},
        {"name": "7"},
        {"mtu": 9000},
    ],
    ids=str,
)
async def test_networks_that_can_not_be(api: Api, wrong: dict[str, Any]) -> None:
    body = {"name": "net", "bridge": "br0", "subnet": "10.79.0.0/24", **wrong}
    assert_problem(await api.http.post("/networks", json=body), 422, "invalid_request")
    assert_problem(await api.http.get("/networks/net"), 404)


async def test_a_vm_on_a_network_that_is_not_there(api: Api) -> None:
    for network in ("nowhere", "999999", "0", "No Where", "x" * 63):
        assert_problem(await api.post_vm(network=network), 422, "unknown_network")
