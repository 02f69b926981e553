"""Names in an RBD pool that are not a caller's: golden images, and those still in the making."""

from __future__ import annotations

import re
import uuid
from typing import Final

from internal_api.drivers.pool_files import check_name, check_sha256
from terrace.errors import Permanent

GOLDEN: Final = "golden"  # the snapshot from which volumes are cloned
_OURS = ("image-", "import-")


def image_name(sha256: str) -> str:
    """Raises Permanent when this is no SHA-256."""
    return f"image-{check_sha256(sha256)}"


def new_import_name(node: str) -> str:
    """For an image not yet whole; no other has this name."""
    return f"import-{node}-{uuid.uuid4().hex}"


def is_import_name(name: str, node: str) -> bool:
    """Whether this node gave this name."""
    return re.fullmatch(rf"import-{re.escape(node)}-[0-9a-f]{{32}}", name) is not None


def volume_name(name: str) -> str:
    """A caller's name for a volume or blob; raises Permanent when it could be an image's."""
    if check_name(name).startswith(_OURS):
        raise Permanent("operation_failed", "A volume's name is not valid.", internal=name)
    return name
