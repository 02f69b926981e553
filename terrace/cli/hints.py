"""What a person can do about a problem, by the problem's code."""

from __future__ import annotations

_LATER = "Try again in a moment. If it stays, `scripts/stack status` on the API's machine shows what is down."
_OPERATOR = "This is a fault of the platform: give the request id to whoever operates it."
_SIZES = "`terrace image show NAME` tells an image's least disk, `terrace node list` the largest node."
_CAPACITY = "`terrace node list` shows what is free: ask for less, or delete a VM."

_BY_CODE = {
    "unauthenticated": "Check TERRACE_TOKEN (`. var/env` sets it) or give --token-file.",
    "forbidden": "The role of this token does not allow it: use another token.",
    "name_taken": "Choose another name, or delete the one that has it.",
    "vm_busy": "`terrace op list --vm {name}` shows what runs; `terrace op wait ID` waits for it.",
    "vm_state": "`terrace vm show {name}` tells its status.",
    "image_in_use": "`terrace vm list` shows the VMs and their images: delete those first.",
    "image_not_ready": "`terrace image show NAME` tells how far it is.",
    "network_in_use": "Delete its VMs first: `terrace vm list`.",
    "size_out_of_range": _SIZES,
    "unknown_image": "`terrace image list` shows the images there are.",
    "unknown_network": "`terrace network list` shows the networks there are.",
    "unknown_ssh_key": "`terrace key list` shows the stored keys; --key also takes a .pub file.",
    "invalid_ssh_key": "Give the public key, the line in a file such as ~/.ssh/id_ed25519.pub.",
    "checksum_mismatch": "The image was changed on its way: try again, or correct the checksum.",
    "image_invalid": "`qemu-img info FILE` tells a file's format; give it with --format.",
    "rate_limited": "Wait a little, then go on more slowly.",
    "no_capacity": _CAPACITY,
    "pool_full": _CAPACITY,
    "no_address": "Delete VMs of this network, or use another one (`terrace network list`).",
    "internal_error": _OPERATOR,
    "operation_failed": _OPERATOR,
}

_LIST_COMMAND = {
    "vms": "vm",
    "images": "image",
    "ssh-keys": "key",
    "nodes": "node",
    "networks": "network",
    "operations": "op",
}


def hint_for(code: str, status: int, path: str) -> str:
    """A hint for a problem of a request to ``path`` (below /api/v1), empty when there is none."""
    collection, _, rest = path.strip("/").partition("/")
    if status == 404 and collection in _LIST_COMMAND:
        return f"`terrace {_LIST_COMMAND[collection]} list` shows what there is."
    if code in _BY_CODE:
        return _BY_CODE[code].format(name=rest.partition("/")[0] or "NAME")
    return _LATER if status in (502, 503, 504) else ""
