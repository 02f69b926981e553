"""The NoCloud seed: a small ISO 9660 image labelled ``cidata``
(https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html)."""

from __future__ import annotations

import io
import struct

import pycdlib

from internal_api.cloudinit import GuestConfig, meta_data, network_config, user_data

SECTOR_BYTES = 2048
LABEL = "cidata"
# 1 January 2000, 00:00 UTC, as ECMA-119 writes it in directory records and in volume descriptors
_RECORD_DATE = bytes([100, 1, 1, 0, 0, 0, 0])
_VOLUME_DATE = b"2000010100000000\0"
_NO_DATE = b"0000000000000000\0"
_FIRST_DESCRIPTOR = 16
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255


def build(guest: GuestConfig) -> bytes:
    """The image for a guest; equal configurations give equal bytes, so that seeds can be compared.

    Raises TerraceError ``invalid_user_data``.
    """
    documents = {
        "meta-data": meta_data(guest),
        "user-data": user_data(guest),
        "network-config": network_config(guest),
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name, text in documents.items():
        content = text.encode()
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"/{name.upper().replace('-', '_')[:8]}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100444,
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    image = bytearray(out.getvalue())
    _fix_dates(image)
    return bytes(image)


def _fix_dates(image: bytearray) -> None:
    """pycdlib writes the present time; put a fixed one over it (ECMA-119 8.4, 9.1 and IEEE P1282 4.1.6)."""
    sector = _FIRST_DESCRIPTOR
    while (kind := image[sector * SECTOR_BYTES]) != _TERMINATOR:
        if kind in (_PRIMARY, _SUPPLEMENTARY):
            start = sector * SECTOR_BYTES
            # created, modified, expires, effective
            image[start + 813 : start + 881] = _VOLUME_DATE * 2 + _NO_DATE + _VOLUME_DATE
            root = start + 156
            image[root + 18 : root + 25] = _RECORD_DATE
            extent, size = struct.unpack_from("<I4xI", image, root + 2)
            _fix_records(image, extent * SECTOR_BYTES, size)
        sector += 1


def _fix_records(image: bytearray, start: int, size: int) -> None:
    position = start
    while position < start + size and (length := image[position]):
        image[position + 18 : position + 25] = _RECORD_DATE
        name_bytes = image[position + 32]
        _fix_timestamps(image, position + 33 + name_bytes + (name_bytes + 1) % 2, position + length)
        position += length


def _fix_timestamps(image: bytearray, start: int, end: int) -> None:
    """Rock Ridge's TF entries, in the system use area of a record."""
    position = start
    while position + 4 <= end and (length := image[position + 2]) >= 4:
        if image[position : position + 2] == b"TF":
            count = (length - 5) // len(_RECORD_DATE)
            image[position + 5 : position + 5 + count * len(_RECORD_DATE)] = _RECORD_DATE * count
        position += length
