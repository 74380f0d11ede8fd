"""Reads the IDX files that MNIST is published as, gzipped or not; trusts no size in a header.

Format: two zero bytes, the type (8: uint8), the number of dimensions, each of them as a big-endian
uint32, then the values.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from utils.files.atomic import open_binary
from utils.process.errors import DataError

_UINT8 = 8
_MAX_ITEMS = 10_000_000
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_MAX_BYTES = 1 << 34
# digits shrink fivefold; zeros shrink a thousandfold
_MAX_RATIO, _ALLOWANCE = 100, 1 << 26


def read_idx(path: str, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The items of a file, (N, *item_shape).

    Args:
        path: of the file; compression is told from its first bytes.
        item_shape: what each item must be: (28, 28) for images, () for labels.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    try:
        with open_binary(path) as file:
            is_zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not is_zipped:
                return _read(file, path, item_shape)
            most = _MAX_RATIO * os.fstat(file.fileno()).st_size + _ALLOWANCE
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(unzipped, path, item_shape, most)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read(
    file: BinaryIO, path: str, item_shape: tuple[int, ...], most: int = _MAX_BYTES
) -> npt.NDArray[np.uint8]:
    num_dimensions = 1 + len(item_shape)
    header = file.read(4 + 4 * num_dimensions)
    magic = bytes([0, 0, _UINT8, num_dimensions])
    if len(header) < 4 + 4 * num_dimensions or header[:4] != magic:
        raise DataError(
            f"{path} begins with {header[:4].hex() or 'nothing'} instead of {magic.hex()}: it is "
            f"no IDX file of {'labels' if not item_shape else 'images'}"
        )
    num_items, *shape = struct.unpack(f">{num_dimensions}I", header[4:])
    if tuple(shape) != item_shape:
        sides = "×".join(map(str, shape))
        raise DataError(f"{path} holds images of {sides} pixels instead of 28×28")
    if not 0 < num_items <= _MAX_ITEMS:
        raise DataError(f"{path} claims {num_items} items; 1 to {_MAX_ITEMS} are possible")
    size = num_items * int(np.prod(item_shape, dtype=np.int64))
    if size > most:
        raise DataError(
            f"{path} claims to unpack to over {_MAX_RATIO} times its size; get it again"
        )
    data = _read_exactly(file, size)
    if len(data) != size or file.read(1):
        found = "more" if len(data) == size else f"{len(data)}"
        raise DataError(
            f"{path} claims {num_items} items, {size} bytes, and holds {found}: it is damaged or "
            "cut off; get it again"
        )
    return np.array(np.frombuffer(data, np.uint8).reshape(num_items, *item_shape))


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes, as they come: a header that lies makes no room for its claim."""
    parts: list[bytes] = []
    missing = size
    while missing > 0:
        part = file.read(min(_CHUNK, missing))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def find_idx(folder: str, stem: str) -> str:
    """The file of this stem (``train-images-idx3-ubyte``) as people have it: gzipped or not.

    Raises:
        DataError: names what was looked for.
    """
    dotted = stem.replace("-idx", ".idx")
    names = [f"{name}{end}" for name in (stem, dotted) for end in ("", ".gz")]
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    raise DataError(f"{folder} holds none of {', '.join(names)}")
