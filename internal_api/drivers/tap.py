"""Names of tap devices."""

from __future__ import annotations

from uuid import UUID

# Everything about taps of ours goes by this prefix.
TAP_PREFIX = "tt"


def tap_name(vm: UUID) -> str:
    """Name of a VM's tap, known before there is one; Linux allows 15 bytes (IFNAMSIZ)."""
    return f"{TAP_PREFIX}{vm.hex[:12]}"
