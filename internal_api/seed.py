"""The NoCloud seed: a small ISO 9660 image labelled ``cidata``
(https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html).

pycdlib makes such an image once, with empty files. What differs between guests, the files and where they
lie, is then put into a copy of it, which is ten times quicker than making each image anew.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator

import pycdlib

from internal_api.cloudinit import GuestConfig, meta_data, network_config, user_data

SECTOR_BYTES = 2048
LABEL = "cidata"
_NAMES = ("meta-data", "network-config", "user-data")  # as ECMA-119 9.3 orders a directory's records
# 1 January 2000, 00:00 UTC, as ECMA-119 writes it in directory records and in volume descriptors
_RECORD_DATE = bytes([100, 1, 1, 0, 0, 0, 0])
_VOLUME_DATE = b"2000010100000000\0"
_NO_DATE = b"0000000000000000\0"
_FIRST_DESCRIPTOR = 16
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_SPACE_SIZE = 80  # where a descriptor says how many sectors the volume has (ECMA-119 8.4.8)
_IS_DIRECTORY = 2


def build(guest: GuestConfig) -> bytes:
    """The image for a guest; equal configurations give equal bytes, so that seeds can be compared.

    Raises TerraceError ``invalid_user_data``.
    """
    contents = [text.encode() for text in (meta_data(guest), network_config(guest), user_data(guest))]
    image = bytearray(_template())
    places = []
    for content in contents:
        places.append((len(image) // SECTOR_BYTES, len(content)))
        image += content
        image += bytes(-len(image) % SECTOR_BYTES)
    for descriptor in _descriptors(image):
        struct.pack_into("<I", image, descriptor + _SPACE_SIZE, len(image) // SECTOR_BYTES)
        struct.pack_into(">I", image, descriptor + _SPACE_SIZE + 4, len(image) // SECTOR_BYTES)
        files = (record for record in _records(image, descriptor) if not image[record + 25] & _IS_DIRECTORY)
        for record, (extent, length) in zip(files, places, strict=True):
            struct.pack_into("<I", image, record + 2, extent)
            struct.pack_into(">I", image, record + 6, extent)
            struct.pack_into("<I", image, record + 10, length)
            struct.pack_into(">I", image, record + 14, length)
    return bytes(image)


@functools.cache
def _template() -> bytes:
    """The image up to its files' contents."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name in _NAMES:
        iso.add_fp(
            io.BytesIO(b"-"),
            1,
            f"/{name.upper().replace('-', '_')[:8]}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100444,
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    image = bytearray(out.getvalue())
    del image[-len(_NAMES) * SECTOR_BYTES :]  # one sector for each file
    _fix_dates(image)
    return bytes(image)


def _descriptors(image: bytearray) -> Iterator[int]:
    """Where the primary and the Joliet volume descriptor begin."""
    start = _FIRST_DESCRIPTOR * SECTOR_BYTES
    while (kind := image[start]) != _TERMINATOR:
        if kind in (_PRIMARY, _SUPPLEMENTARY):
            yield start
        start += SECTOR_BYTES


def _records(image: bytearray, descriptor: int) -> Iterator[int]:
    """Where the records of a volume's only directory begin (ECMA-119 9.1)."""
    extent, size = struct.unpack_from("<I4xI", image, descriptor + 156 + 2)
    position = extent * SECTOR_BYTES
    end = position + size
    while position < end and (length := image[position]):
        yield position
        position += length


def _fix_dates(image: bytearray) -> None:
    """pycdlib writes the present time; put a fixed one over it (ECMA-119 8.4, 9.1 and IEEE P1282 4.1.6)."""
    for start in _descriptors(image):
        # created, modified, expires, effective
        image[start + 813 : start + 881] = _VOLUME_DATE * 2 + _NO_DATE + _VOLUME_DATE
        image[start + 156 + 18 : start + 156 + 25] = _RECORD_DATE
        for record in _records(image, start):
            image[record + 18 : record + 25] = _RECORD_DATE
            name_bytes = image[record + 32]
            _fix_timestamps(image, record + 33 + name_bytes + (name_bytes + 1) % 2, record + image[record])


def _fix_timestamps(image: bytearray, start: int, end: int) -> None:
    """Rock Ridge's TF entries, in the system use area of a record."""
    position = start
    while position + 4 <= end and (length := image[position + 2]) >= 4:
        if image[position : position + 2] == b"TF":
            count = (length - 5) // len(_RECORD_DATE)
            image[position + 5 : position + 5 + count * len(_RECORD_DATE)] = _RECORD_DATE * count
        position += length
