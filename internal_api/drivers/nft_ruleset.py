"""What may leave a guest: nftables text (nft(8)), one bridge table for each bridge with guests of ours.

- Ethernet: only the card's own source address, no VLAN tags.
- ARP: only the card's own MAC as sender, and its own IPv4 address, or 0.0.0.0 (a probe, RFC 5227).
- IPv4: only its own source address. A card whose address somebody else's DHCP decides may use any, but
  never answer as a DHCP server.
- All else is dropped, IPv6 with it: Terrace gives out no IPv6 addresses, so it could not tell a guest's
  own from a neighbour's, and router advertisements from a guest would take over its neighbours.

The hook is prerouting, before the bridge decides: so it holds towards other guests, the host and the LAN
alike. A table polices the taps in its ``taps`` set and no others (kernels without CONFIG_NFT_BRIDGE_META
cannot ask for the bridge): a card's elements must be there before its tap is.
"""

from __future__ import annotations

import re

from internal_api.drivers.protocols import NicSpec
from internal_api.drivers.tap import TAP_PREFIX

_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TAP = re.compile(rf"{TAP_PREFIX}[0-9a-z]{{1,13}}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")

TABLE_PREFIX = "terrace_"


def table_of(bridge: str) -> str:
    """Name of the bridge's table; raises ValueError for what is no bridge's name."""
    return TABLE_PREFIX + _checked(_BRIDGE, bridge)


def table_text(bridge: str) -> str:
    """The table, its sets and rules. May be loaded again and at the same time: elements stay."""
    table = table_of(bridge)
    return f"""\
add table bridge {table}
add set bridge {table} taps {{ type ifname; }}
add set bridge {table} tap_mac {{ type ifname . ether_addr; }}
add set bridge {table} tap_ip {{ type ifname . ipv4_addr; }}
add set bridge {table} tap_any_ip {{ type ifname; }}
add chain bridge {table} from_tap
add chain bridge {table} prerouting {{ type filter hook prerouting priority -200; policy accept; }}
flush chain bridge {table} from_tap
flush chain bridge {table} prerouting
add rule bridge {table} prerouting iifname @taps jump from_tap
add rule bridge {table} from_tap iifname . ether saddr != @tap_mac drop
add rule bridge {table} from_tap ether type arp arp htype 1 arp ptype ip \
iifname . arp saddr ether @tap_mac iifname . arp saddr ip @tap_ip accept
add rule bridge {table} from_tap ether type arp arp htype 1 arp ptype ip \
iifname . arp saddr ether @tap_mac arp saddr ip 0.0.0.0 accept
add rule bridge {table} from_tap ether type arp arp htype 1 arp ptype ip \
iifname . arp saddr ether @tap_mac iifname @tap_any_ip accept
add rule bridge {table} from_tap ether type ip udp sport 67 drop
add rule bridge {table} from_tap ether type ip iifname . ip saddr @tap_ip accept
add rule bridge {table} from_tap ether type ip iifname @tap_any_ip accept
add rule bridge {table} from_tap drop
"""


def elements_of(nic: NicSpec, ip: str | None) -> frozenset[tuple[str, str]]:
    """(set, element) of a card; raises ValueError for a malformed name or address."""
    tap = _checked(_TAP, nic.tap)
    address = ("tap_any_ip", tap) if ip is None else ("tap_ip", f"{tap} . {_checked(_IPV4, ip)}")
    return frozenset({("taps", tap), ("tap_mac", f"{tap} . {_checked(_MAC, nic.mac.lower())}"), address})


def add_text(bridge: str, elements: frozenset[tuple[str, str]], owner: str) -> str:
    """Add elements, with their owner as comment; those that exist stay."""
    return _each(bridge, "add", elements, f' comment "{_checked(_OWNER, owner)}"')


def remove_text(bridge: str, elements: frozenset[tuple[str, str]]) -> str:
    """Remove elements. Added first, as nft would fail for one that is absent."""
    return _each(bridge, "add", elements) + _each(bridge, "delete", elements)


def _each(bridge: str, verb: str, elements: frozenset[tuple[str, str]], comment: str = "") -> str:
    table = table_of(bridge)
    return "".join(
        f"{verb} element bridge {table} {name} {{ {element}{comment} }}\n" for name, element in sorted(elements)
    )


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"not fit for nft: {text[:100]!r}")
    return text
