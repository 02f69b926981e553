"""What a person can do about a problem, by the problem's code."""

from __future__ import annotations

_LATER = "Try again in a moment. If it stays, `scripts/stack status` on the API's machine shows what is down."
_OPERATOR = "This is a fault of the platform: give the request id to whoever operates it."
_SIZES = (
    "`terrace image show NAME` tells an image's least disk, `terrace node list` the largest node. Disks never shrink."
)
_CAPACITY = "`terrace node list` shows what is free: ask for less, or delete a VM or a volume."
_VMS = "`terrace vm list` shows the VMs there are."

# {vm} and {volume}: those of the request's path, or a placeholder
_BY_CODE = {
    "unauthenticated": "Check TERRACE_TOKEN (`. var/env` sets it) or give --token-file.",
    "forbidden": "The role of this token does not allow it: use another token.",
    "name_taken": "Choose another name, or delete the one that has it.",
    "vm_busy": "`terrace op list --vm {vm}` shows what runs; `terrace op wait ID` waits for it.",
    "vm_state": "`terrace vm show {vm}` tells its status.",
    "image_in_use": "`terrace vm list` shows the VMs and their images: delete those first. `terrace node drift` shows"
    " disks of no VM.",
    "image_not_ready": "`terrace image show NAME` tells how far it is.",
    "volume_in_use": "`terrace volume show {volume}` tells its VM, `terrace snapshot list VM` that one's snapshots.",
    "volume_state": "`terrace volume show {volume}` tells its status.",
    "volume_busy": "`terrace volume show {volume}` tells its operation; `terrace op wait ID` waits for it.",
    "volume_elsewhere": "`terrace node list` shows the nodes' storage: what lies on a node's own disks stays there.",
    "device_busy": "A guest that still starts does not answer: try again. Of a stopped VM it can always be detached.",
    "snapshot_state": "`terrace snapshot list {vm}` shows how far it is.",
    "pool_busy": "`terrace op list` shows what runs: wait for it to end.",
    "network_in_use": "Delete its VMs first: `terrace vm list`.",
    "size_out_of_range": _SIZES,
    "too_many_volumes": "`terrace volume list --vm VM` shows them: detach one first.",
    "unknown_image": "`terrace image list` shows the images there are.",
    "unknown_vm": _VMS,
    "unknown_snapshot": "`terrace snapshot list VM` shows those of a VM.",
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
    "volume_missing": _OPERATOR,
    "snapshot_missing": _OPERATOR,
}

_LIST_COMMAND = {
    "vms": "vm",
    "volumes": "volume",
    "snapshots": "snapshot",
    "images": "image",
    "ssh-keys": "key",
    "nodes": "node",
    "networks": "network",
    "operations": "op",
}


def hint_for(code: str, status: int, path: str) -> str:
    """A hint for a problem of a request to ``path`` (below /api/v1), empty when there is none."""
    collection, _, rest = path.strip("/").partition("/")
    name, _, below = rest.partition("/")
    if status == 404 and below.startswith("snapshots"):
        return f"{_VMS} `terrace snapshot list` shows their snapshots."
    if status == 404 and collection in _LIST_COMMAND:
        return f"`terrace {_LIST_COMMAND[collection]} list` shows what there is."
    if code in _BY_CODE:
        vm, volume = (name if name and collection == wanted else "" for wanted in ("vms", "volumes"))
        return _BY_CODE[code].format(vm=vm or "VM", volume=volume or "VOLUME")
    return _LATER if status in (502, 503, 504) else ""
