"""The committed OpenAPI document is the one that the code makes."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_committed_document_is_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "export-openapi", "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
