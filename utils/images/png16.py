"""PNG files with 16 bits a channel, as uint16: Pillow gives colours of theirs in 8 bits only.

zlib unpacks, numpy undoes the filters (PNG specification, third edition, sections 9 and 10). A
library would be imagecodecs or OpenCV (tens of megabytes) or pypng, whose loops over bytes are
Python's. Here the filters that look to the left *and* up (Average, Paeth) run along the diagonals,
on all rows at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.images.files import PNG_MAGIC

_DEPTH_AT, _COLOUR_AT = 8, 9  # places in the header
# colour type → channels, alpha included: grey, RGB, grey with alpha, RGB with alpha
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_WITH_ALPHA = (4, 6)
_NEEDED = (b"IHDR", b"IDAT", b"tRNS", b"IEND")
# first column, first row, step of columns, step of rows: one pass, and the seven of Adam7
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_OPAQUE = 65535


class _Pass(NamedTuple):
    """The pixels of one pass: every so many columns and rows."""

    columns: slice
    rows: slice
    width: int
    height: int


def is_png16(data: bytes) -> bool:
    """Whether the first bytes of a file say PNG with 16 bits a channel."""
    header = data[len(PNG_MAGIC) + 8 :]
    return data.startswith(PNG_MAGIC) and header[_DEPTH_AT : _DEPTH_AT + 1] == b"\x10"


def decode_png16(
    data: bytes, width: int, height: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """The channels (H, W, 1 or 3) and, where the file has one, the alpha (H, W).

    A colour that the file calls transparent (tRNS) becomes an alpha of 0, all others 65535. The
    sizes are those of the header, which the caller has checked: no more is unpacked than they need.

    Raises:
        ValueError: truncated or damaged; without the name of the file.
    """
    chunks: dict[bytes, list[bytes]] = {kind: [] for kind in _NEEDED}
    for kind, content in _chunks(data):
        chunks[kind].append(content)
    header = chunks[b"IHDR"][0] if chunks[b"IHDR"] else b""
    colour = header[_COLOUR_AT] if len(header) == 13 else -1
    if colour not in _CHANNELS or not chunks[b"IEND"] or min(width, height) < 1:
        raise ValueError("cut off, or no PNG of grey levels or RGB")
    num_channels = _CHANNELS[colour]
    passes = list(_passes(width, height, is_interlaced=header[12] == 1))
    bytes_per_pixel = 2 * num_channels
    size = sum(one.height * (1 + one.width * bytes_per_pixel) for one in passes)
    raw = zlib.decompressobj().decompress(b"".join(chunks[b"IDAT"]), size)
    if len(raw) < size:
        raise ValueError(f"cut off: {len(raw)} of {size} bytes of pixels")
    image = np.empty((height, width, num_channels), np.uint16)
    start = 0
    for one in passes:
        end = start + one.height * (1 + one.width * bytes_per_pixel)
        lines = np.frombuffer(raw, np.uint8, end - start, start).reshape(one.height, -1)
        pixels = np.ascontiguousarray(_unfiltered(lines, one.width)).view(">u2")
        image[one.rows, one.columns] = pixels
        start = end
    if colour in _WITH_ALPHA:
        return np.ascontiguousarray(image[..., :-1]), np.ascontiguousarray(image[..., -1])
    return image, _alpha_of_colour(image, chunks[b"tRNS"])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and content of each chunk that pixels depend on; ValueError for a wrong checksum."""
    place = len(PNG_MAGIC)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if kind in _NEEDED:
            if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise ValueError(f"cut off, or chunk {kind.decode()} has a wrong checksum")
            yield kind, data[place + 8 : end]
        if kind == b"IEND":
            return
        place = end + 4


def _passes(width: int, height: int, *, is_interlaced: bool) -> Iterator[_Pass]:
    for x, y, step_x, step_y in _ADAM7 if is_interlaced else _WHOLE:
        columns, rows = len(range(x, width, step_x)), len(range(y, height, step_y))
        if columns and rows:
            yield _Pass(slice(x, None, step_x), slice(y, None, step_y), columns, rows)


def _alpha_of_colour(
    image: NDArray[np.uint16], transparent: list[bytes]
) -> NDArray[np.uint16] | None:
    if not transparent:
        return None
    if len(transparent[0]) != 2 * image.shape[2]:
        raise ValueError("chunk tRNS is no colour of this image")
    is_clear = (image == np.frombuffer(transparent[0], ">u2")).all(axis=2)
    return np.where(is_clear, 0, _OPAQUE).astype(np.uint16)


def _unfiltered(lines: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The bytes of the pixels (H, W, bytes a pixel) of filtered lines (H, 1 + W · bytes)."""
    kinds, filtered = lines[:, 0], lines[:, 1:].reshape(len(lines), width, -1)
    if kinds.max() > 4:
        raise ValueError(f"filter {kinds.max()} does not exist")
    if kinds.max() > 2:
        return _along_diagonals(kinds, filtered)
    found: NDArray[np.uint8] = filtered.copy()
    for row, kind in enumerate(kinds):
        if kind == 1:
            np.cumsum(filtered[row], axis=0, dtype=np.uint8, out=found[row])
        elif kind == 2 and row:
            found[row] += found[row - 1]
    return found


def _along_diagonals(kinds: NDArray[np.uint8], filtered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo all five filters: pixels with the same x + y depend on none of each other.

    In an image with one more column and row, of zeros, at the left and the top, the pixels of a
    diagonal lie `width` apart, and so do their neighbours to the left (a), above (b) and both (c).
    """
    height, width, num_bytes = filtered.shape
    length = width + 1
    padded: NDArray[np.uint8] = np.zeros((height + 1, length, num_bytes), np.uint8)
    padded[1:, 1:] = filtered
    flat = padded.reshape(-1, num_bytes)
    is_kind = [(kinds == kind).astype(np.int16)[:, None] for kind in range(5)]
    for diagonal in range(height + width - 1):
        first, last = max(0, diagonal - width + 1), min(height, diagonal + 1)
        start, step = (first + 1) * length + 1 + diagonal - first, width
        stop = start + (last - first - 1) * step + 1
        a, b, c = (
            flat[start - back : stop - back : step].astype(np.int16)
            for back in (1, length, length + 1)
        )
        left, up, average, paeth = (one[first:last] for one in is_kind[1:])
        guess = left * a + up * b + average * ((a + b) >> 1) + paeth * _paeth(a, b, c)
        flat[start:stop:step] += guess.astype(np.uint8)
    return padded[1:, 1:]


def _paeth(a: NDArray[np.int16], b: NDArray[np.int16], c: NDArray[np.int16]) -> NDArray[np.int16]:
    """Whichever of a, b and c is nearest to a + b - c; of equal ones the first."""
    from_a, from_b = np.abs(b - c), np.abs(a - c)
    from_c = np.abs(a + b - 2 * c)
    return np.where((from_a <= from_b) & (from_a <= from_c), a, np.where(from_b <= from_c, b, c))
