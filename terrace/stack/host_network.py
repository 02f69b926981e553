"""The machine's side of the guests' network: bridge, address translation, forwarding.

Everything here is made by `ensure` and taken away by `remove`. What the kernel holds is marked as ours,
so that no state file can be wrong: the bridge by its alias, the tables by their name.
"""

from pathlib import Path
from typing import Any

from terrace.stack import commands
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.settings import StackSettings

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# an empty chain of this name in our table: forwarding was off before the first stack
WAS_OFF = "forwarding_was_off"
LONGEST_ALIAS = 240  # the kernel's limit is 255 (IFALIASZ)

# The clamp lets guests (MTU 1500) speak TCP through an uplink with a smaller MTU.
TABLE = """\
table ip {table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} ip daddr != {subnet} masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
        oifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
        iifname "{bridge}" accept
        oifname "{bridge}" accept
    }}
{mark}}}
"""


def table_name(settings: StackSettings) -> str:
    """Of our nftables table of family ip; the nodes' own filter in family bridge has the same name."""
    return f"terrace_{settings.bridge}"


def alias(layout: Layout) -> str:
    """The mark on what is ours: whose stack it belongs to."""
    text = f"terrace:{layout.var}"
    return text if len(text.encode()) <= LONGEST_ALIAS else f"terrace:{layout.mark}"


def ensure(settings: StackSettings) -> None:
    """Raises StackError if a bridge of that name exists and is not ours."""
    bridge = settings.bridge
    address = f"{settings.gateway}/{settings.subnet.prefixlen}"
    if owner(bridge) is None:
        commands.run("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0", "stp_state", "0")
        commands.run("ip", "link", "set", bridge, "alias", alias(settings.layout))
    refuse_foreign_bridge(settings)
    commands.run("ip", "addr", "replace", address, "dev", bridge)
    commands.run("ip", "link", "set", bridge, "up")
    _ensure_translation(settings)


def refuse_foreign_bridge(settings: StackSettings) -> None:
    found = owner(settings.bridge)
    if found is not None and found != alias(settings.layout):
        ours = found.startswith("terrace:")
        whose = f"of the stack under {found.removeprefix('terrace:')}" if ours else "not ours"
        raise StackError(
            f"The network interface {settings.bridge} exists and is {whose}: set TERRACE_BRIDGE to another name."
        )


def owner(interface: str) -> str | None:
    """Alias of an interface, empty if it has none; None if there is no such interface."""
    every: list[dict[str, Any]] = commands.run_json("ip", "-j", "link")
    links = [link for link in every if link["ifname"] == interface]
    return str(links[0].get("ifalias", "")) if links else None


def _ensure_translation(settings: StackSettings) -> None:
    table = table_name(settings)
    was_off = FORWARDING.read_text().strip() == "0" or any(WAS_OFF in chains for chains in _our_tables().values())
    mark = f"    chain {WAS_OFF} {{ }}\n" if was_off else ""
    text = TABLE.format(table=table, bridge=settings.bridge, subnet=settings.subnet, mark=mark)
    # declared, deleted and made anew in one transaction
    commands.run("nft", "-f", "-", input=f"table ip {table}\ndelete table ip {table}\n{text}")
    if FORWARDING.read_text().strip() == "0":
        FORWARDING.write_text("1\n")


def remove(settings: StackSettings) -> None:
    """Takes away what is ours; what is absent or somebody else's is left alone."""
    if owner(settings.bridge) != alias(settings.layout):
        return
    chains = _our_tables()
    mine = table_name(settings)
    for family in ("ip", "bridge"):
        commands.run("nft", "-f", "-", input=f"table {family} {mine}\ndelete table {family} {mine}\n")
    if WAS_OFF in chains.pop(mine, set()) and not chains:
        FORWARDING.write_text("0\n")
    commands.run("ip", "link", "del", settings.bridge)


def _our_tables() -> dict[str, set[str]]:
    """Chains of all stacks' tables of family ip, by table."""
    listing = commands.run_json("nft", "-j", "list", "ruleset", "ip")["nftables"]
    tables = {item["table"]["name"]: set[str]() for item in listing if "table" in item}
    for chain in (item["chain"] for item in listing if "chain" in item):
        tables[chain["table"]].add(chain["name"])
    return {name: chains for name, chains in tables.items() if name.startswith("terrace_")}


def forwarding_blockers() -> list[str]:
    """Other firewalls' chains that drop what they don't know; our own acceptance can't overrule them."""
    listing = commands.run_json("nft", "-j", "list", "chains")["nftables"]
    chains = [item["chain"] for item in listing if "chain" in item]
    drops = [chain for chain in chains if chain.get("hook") == "forward" and chain.get("policy") == "drop"]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}" for chain in drops if chain["family"] in ("ip", "inet")
    ]
