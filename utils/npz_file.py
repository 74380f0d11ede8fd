"""Reads ``.npz`` files that anybody may have written; which arrays belong together is not known.

Nothing is unpickled, and a header that claims more than its file can hold makes no room for it.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

# deflate shrinks by 1032 at most
_MAX_RATIO = 1040
_MAX_BYTES = 1 << 34
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_npz(path: str, flag: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the wanted arrays that the file holds; others are not looked at.

    Args:
        path: of the file.
        flag: which named it, for the messages.
        wanted: names of arrays.

    Raises:
        DataError: missing, damaged, or with objects instead of numbers; names flag, file, remedy.
    """
    where = f"{flag} {path}"
    if not os.path.exists(path):
        raise DataError(f"{where} is missing: give a folder of images or an .npz file")
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            names = [name for name in wanted if f"{name}.npy" in archive.NameToInfo]
            return {name: _read_array(archive, name, where) for name in names}
    except DataError:
        raise
    except _DAMAGE as error:
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise DataError(f"{where} is no whole .npz file ({reason}); make it again") from None


def _read_array(archive: zipfile.ZipFile, name: str, where: str) -> NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    is_stored = info.compress_type == zipfile.ZIP_STORED
    if not is_stored and info.compress_type != zipfile.ZIP_DEFLATED:
        raise DataError(
            f"{where}: {name} is packed in a way that numpy does not use; save it again"
        )
    with archive.open(info) as member:
        size = _claimed_bytes(member, f"{where}: {name}")  # type: ignore[arg-type]
    room = info.compress_size * (1 if is_stored else _MAX_RATIO)
    if size > min(info.file_size, room) or size > _MAX_BYTES:
        raise DataError(
            f"{where}: {name} claims {size} bytes, the file has room for "
            f"{min(info.file_size, room, _MAX_BYTES)}; it is cut off or damaged, make it again"
        )
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise DataError(f"{where}: {name} goes on behind its end; make the file again")
    return array


def _claimed_bytes(member: BinaryIO, where: str) -> int:
    """Bytes of the values that the header of a ``.npy`` file announces."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise DataError(f"{where} has format {version}, not that of plain numbers; save it again")
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled objects, which could run code and are not read; save it again "
            "as an array of numbers"
        )
    num_items = 1
    for length in shape:
        num_items *= length
    if min(shape, default=0) < 0:
        raise DataError(f"{where} has the impossible shape {shape}; make it again")
    return num_items * dtype.itemsize
