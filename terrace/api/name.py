"""The one rule for names of everything that a project owns."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# matched in full: `$` would let a final newline pass
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(name: str) -> str:
    """A name of a VM, key, image, network, volume or snapshot: an RFC 1123 label that is not all digits."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "must be an RFC 1123 label: 1 to 63 lowercase letters, digits or '-', beginning and ending with a"
            " letter or digit"
        )
    if name.isdigit():
        raise ValueError("must not be all digits, as ids are")
    return name


Name = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(check_name)]
