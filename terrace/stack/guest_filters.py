"""The guests' packet filters on bridges that are not the stack's own, but that a network names.

The nodes make them (`internal_api.drivers.nft_ruleset`). Such a bridge's table may also hold guests of
another stack; which are ours is told by the domains' definitions, which outlive the nodes.
"""

import re
from typing import Any

from terrace.stack import commands, host_network
from terrace.stack.layout import Layout
from terrace.stack.settings import StackSettings

_TARGET = re.compile(r"<target dev='(tt[0-9a-z]+)'")


def remove(settings: StackSettings) -> None:
    """Forgets this stack's guests, once they are off, and tables that hold no others."""
    mine = _taps(settings.layout)
    for table, elements in _tables().items():
        bridge = table.removeprefix("terrace_")
        if (host_network.owner(bridge) or "").startswith("terrace:"):
            continue  # made and taken away with its stack
        if all(words[0] in mine for _, words in elements):
            commands.run("nft", "delete", "table", "bridge", table)
            continue
        for name, words in elements:
            if words[0] in mine:
                commands.run("nft", "delete", "element", "bridge", table, name, f"{{ {' . '.join(words)} }}")


def _taps(layout: Layout) -> set[str]:
    texts = [path.read_text() for path in layout.var.glob("hv*/etc/qemu/*.xml")]
    return {tap for text in texts for tap in _TARGET.findall(text)}


def _tables() -> dict[str, list[tuple[str, list[str]]]]:
    """Elements (set, words; the first is a tap) of all stacks' tables of family bridge, by table."""
    listing = commands.run_json("nft", "-j", "list", "ruleset", "bridge")["nftables"]
    names = [item["table"]["name"] for item in listing if "table" in item]
    tables: dict[str, list[tuple[str, list[str]]]] = {name: [] for name in names if name.startswith("terrace_")}
    for one in (item["set"] for item in listing if "set" in item and item["set"]["table"] in tables):
        tables[one["table"]] += [(one["name"], _words(element)) for element in one.get("elem", [])]
    return tables


def _words(element: Any) -> list[str]:
    value = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
    return [str(word) for word in value["concat"]] if isinstance(value, dict) else [str(value)]
