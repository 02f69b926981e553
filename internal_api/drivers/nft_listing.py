"""Reads what ``nft -j list ruleset bridge`` prints (libnftables-json(5))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from internal_api.drivers.nft_ruleset import TABLE_PREFIX


@dataclass(frozen=True, slots=True)
class TapFilter:
    """The elements of one tap, as :func:`internal_api.drivers.nft_ruleset.elements_of` makes them."""

    bridge: str
    elements: frozenset[tuple[str, str]]

    @property
    def mac(self) -> str | None:
        """The card's MAC."""
        return next((text.split(" . ")[1] for name, text in self.elements if name == "tap_mac"), None)


def read_listing(listing: Mapping[str, Any], owner: str) -> dict[str, TapFilter]:
    """Filters by tap, of all our tables, whose elements carry ``owner`` as comment."""
    found: dict[str, TapFilter] = {}
    for entry in listing.get("nftables", ()):
        table_set = entry.get("set", {})
        table = table_set.get("table", "")
        if not table.startswith(TABLE_PREFIX):
            continue
        bridge = table.removeprefix(TABLE_PREFIX)
        for tap, element in _owned(table_set.get("elem", ()), owner):
            before = found[tap].elements if tap in found else frozenset()
            found[tap] = TapFilter(bridge, before | {(table_set["name"], element)})
    return found


def _owned(elements: Any, owner: str) -> Iterator[tuple[str, str]]:
    for element in elements:
        inner = element.get("elem") if isinstance(element, dict) else None
        if inner is None or inner.get("comment") != owner:
            continue
        value = inner["val"]
        parts = value["concat"] if isinstance(value, dict) else [value]
        yield parts[0], " . ".join(parts)
