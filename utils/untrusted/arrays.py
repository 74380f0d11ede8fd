"""Reads `.npz` and `.npy` files of anybody; which arrays belong together is not known.

Nothing is unpickled, and a header that claims more than its file can hold makes no room for it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import open_binary
from utils.process.errors import DataError

# deflate shrinks by 1032 at most
_MAX_RATIO = 1040
MAX_BYTES = 1 << 34
_MAKE_AGAIN = "make it again"
# what numpy, its parser of headers and zipfile raise on damaged files
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    MemoryError,
    TypeError,
    SyntaxError,
    AssertionError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_npz(
    path: str,
    where: str,
    wanted: Sequence[str] | None = None,
    *,
    remedy: str = _MAKE_AGAIN,
    max_bytes: int = MAX_BYTES,
) -> dict[str, NDArray[Any]]:
    """Those of the wanted arrays that the file holds; others are not looked at.

    Args:
        where: what messages call the file: its path, and the flag that named it.
        wanted: names of arrays; None: all.
        max_bytes: of one array.

    Raises:
        DataError: damaged, or with objects instead of numbers; names file and remedy.
        FileNotFoundError: nothing is there.
    """
    with _naming_damage(f"{where} is no whole .npz file", remedy):  # noqa: SIM117
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            held = [name.removesuffix(".npy") for name in archive.NameToInfo]
            names = held if wanted is None else [name for name in wanted if name in held]
            return {name: _read_member(archive, name, max_bytes) for name in names}


def read_npz_rows(
    path: str, name: str, shape: tuple[int, ...], *, remedy: str = _MAKE_AGAIN
) -> Iterator[NDArray[np.uint8]]:
    """The rows of one uint8 array, one after the other: memory of a row, however large the file.

    The array must have this shape, (N, ...), and lie in C order.

    Raises:
        DataError: as `read_npz`, or another shape; a wrong checksum shows behind the last
            row.
    """
    size = math.prod(shape[1:])
    with (
        _naming_damage(f"{path} is no whole .npz file", remedy),
        open_binary(path) as file,
        zipfile.ZipFile(file) as archive,
        archive.open(_member(archive, name)) as member,
    ):
        found, is_fortran, dtype = _header(member)
        if found != shape or is_fortran or dtype != np.uint8:
            raise ValueError(f"{name} is {dtype} {found}, not uint8 {shape}")
        for _ in range(shape[0]):
            content = member.read(size)
            if len(content) != size:
                raise ValueError(f"{name} is cut off")
            yield np.frombuffer(content, np.uint8).reshape(shape[1:])
        _require_end(member, name)


def read_npy(path: str, *, remedy: str = _MAKE_AGAIN) -> NDArray[Any]:
    """The array of a `.npy` file; raises as `read_npz`."""
    with _naming_damage(f"{path} is no whole .npy file", remedy), open_binary(path) as file:
        return _array(file, os.fstat(file.fileno()).st_size)


def parse_npy(data: bytes) -> NDArray[Any]:
    """The array of the bytes of a `.npy` file; ValueError, without its name, for damage."""
    try:
        return _array(io.BytesIO(data), len(data))
    except _DAMAGE as error:
        raise ValueError(_reason(error)) from None


def _array(file: IO[bytes], num_bytes: int) -> NDArray[Any]:
    size = _claimed_bytes(file)
    room = num_bytes - file.tell()
    if size != room:
        raise ValueError(f"it claims {size} bytes and holds {room}")
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


@contextlib.contextmanager
def _naming_damage(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{what} ({_reason(error)}); {remedy}") from None


def _reason(error: Exception) -> str:
    return str(error).split("\n")[0][:200] or type(error).__name__


def _read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> NDArray[Any]:
    info = _member(archive, name)
    with archive.open(info) as member:
        size = _claimed_bytes(member)
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _MAX_RATIO
    room = min(info.file_size, info.compress_size * ratio, max_bytes)
    if size > room:
        raise ValueError(f"{name} claims {size} bytes, the file has room for {room}")
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        _require_end(member, name)
    return array


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that numpy does not use")
    return info


def _require_end(member: IO[bytes], name: str) -> None:
    if member.read(1):
        raise ValueError(f"{name} goes on behind its end")


def _claimed_bytes(member: IO[bytes]) -> int:
    """Bytes of the values that the header of a `.npy` file announces."""
    shape, _, dtype = _header(member)
    return math.prod(shape) * dtype.itemsize


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"it has format {version}, not that of plain numbers")
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which could run code and are not read")
    if min(shape, default=0) < 0:
        raise ValueError(f"it has the impossible shape {shape}")
    return shape, is_fortran, dtype
