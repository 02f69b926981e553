"""Networks in requests and answers."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from terrace.api.body import Body
from terrace.api.name import check_name
from terrace.store.networks import Network


class NetworkCreate(Body):
    """An existing bridge of the hosts to make known."""

    name: str = Field(min_length=1, max_length=63, examples=["office"])
    bridge: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")] = Field(
        examples=["br0"], description="Name of the bridge on every node"
    )
    dhcp: Literal["terrace", "external"] = Field(
        default="terrace",
        description="terrace: addresses out of `subnet`; external: somebody else's DHCP server",
    )
    subnet: str | None = Field(default=None, examples=["10.78.0.0/16"], description="IPv4, /16 to /29")
    gateway: str | None = Field(default=None, examples=["10.78.0.1"], description="Default: the first address")
    dns: list[str] = Field(default_factory=list, max_length=3, examples=[["9.9.9.9"]], description="IPv4 addresses")

    @field_validator("name")
    @classmethod
    def _name_is_label(cls, name: str) -> str:
        return check_name(name)

    @field_validator("dns")
    @classmethod
    def _dns_are_addresses(cls, dns: list[str]) -> list[str]:
        return [str(ipaddress.IPv4Address(address)) for address in dns]

    @model_validator(mode="after")
    def _subnet_fits(self) -> Self:
        if self.dhcp == "external":
            if self.subnet or self.gateway or self.dns:
                raise ValueError("subnet, gateway and dns are the foreign DHCP server's to give")
            return self
        if self.subnet is None:
            raise ValueError("subnet is required with dhcp=terrace")
        network = self.cidr()
        if not 16 <= network.prefixlen <= 29:
            raise ValueError("subnet must have a prefix between /16 and /29")
        ends = (network.network_address, network.broadcast_address)
        if self.gateway_address() not in network or self.gateway_address() in ends:
            raise ValueError("gateway must be an address for a host in subnet")
        return self

    def cidr(self) -> ipaddress.IPv4Network:
        """The subnet; raises ValueError when it is none."""
        return ipaddress.IPv4Network(self.subnet or "")

    def gateway_address(self) -> ipaddress.IPv4Address:
        """The gateway, by default the subnet's first address."""
        return ipaddress.IPv4Address(self.gateway) if self.gateway else self.cidr().network_address + 1


class NetworkOut(BaseModel):
    """A layer-2 segment that VMs can be put on."""

    id: int
    name: str = Field(examples=["default"])
    bridge: str = Field(examples=["terrace0"])
    dhcp: str = Field(examples=["terrace"])
    subnet: str | None = Field(examples=["10.77.0.0/16"])
    gateway: str | None = Field(examples=["10.77.0.1"])
    dns: list[str]
    created_at: datetime


def network_view(network: Network) -> dict[str, Any]:
    """A network as :class:`NetworkOut` describes it."""
    return {
        "id": network.id,
        "name": network.name,
        "bridge": network.bridge,
        "dhcp": network.dhcp,
        "subnet": network.cidr,
        "gateway": network.gateway,
        "dns": network.dns,
        "created_at": network.created_at,
    }
