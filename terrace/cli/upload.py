"""Uploads a disk file: its checksum first, then its bytes, both with a bar."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from terrace.cli.cells import size_bytes
from terrace.cli.client import Api
from terrace.cli.failures import ExitCode, Failure, usage
from terrace.cli.output import console, for_people, say
from terrace.cli.reply import Reply

_CHUNK_BYTES = 1024 * 1024
_QCOW2_MAGIC = b"QFI\xfb"  # qemu's docs/interop/qcow2.txt


def upload_image(api: Api, name: str, path: Path, disk_format: str | None, checksum: str | None) -> Reply:
    """Sends the file; the server refuses it unless its SHA-256 is the one computed here (or given)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            disk_format = disk_format or ("qcow2" if file.read(4) == _QCOW2_MAGIC else "raw")
        computed = _checksum(path, size)
        if checksum is not None and checksum.lower() != computed:
            raise Failure(
                ExitCode.FAILED,
                f"{path} is not the file that --checksum means, and was not sent.",
                facts=[("given", checksum), ("computed", computed)],
            )
        params = {"name": name, "format": disk_format, "checksum": computed}
        with _bar("upload", size) as advance:
            return api.upload("/images", params, _chunks(path, advance), size)
    except OSError as error:
        raise usage(f"Cannot read {path}: {error.strerror}.") from None


def _checksum(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with _bar("checksum", size) as advance:
        for chunk in _chunks(path, advance):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _chunks(path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            advance(len(chunk))


@contextmanager
def _bar(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one line elsewhere."""
    if not for_people(sys.stderr):
        say(f"{what} of {size_bytes(size)}")
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr)) as progress:
        task = progress.add_task(what, total=size)
        yield lambda count: progress.advance(task, count)
