"""Bytes of an image file → RGB, and what is not in the pixels any more; errors name the file.

All that makes a file a damaged image is decided here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from utils.process.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# A quarter GiB of RGB: where Pillow starts to warn of a decompression bomb.
MAX_PIXELS = (1 << 28) // 3
# What of a file does not reach its RGB pixels; an orientation does where it is asked for.
DEPTH, ALPHA, ORIENTATION = "16-bit", "alpha", "orientation"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError)
_DECODE_ERRORS = (*_BOMBS, *_DAMAGE, struct.error, zlib.error)
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_HEADER = 30  # bytes: as far as the sizes of a WEBP file reach
_PNG_DEPTH = 24  # place of the bit depth
# Texts and colour profiles: no pixel depends on them here, and Pillow refuses those beyond 1 MB.
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_ORIENTATION_TAG = 0x0112
_TURNS = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
_SWAPPING = frozenset({5, 6, 7, 8})
T = TypeVar("T")


class BadImageError(DataError):
    """A file is no whole image of a supported kind; the message names it, the cause, the remedy."""


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of its image.

    Attributes:
        width: pixels, after the orientation where that is applied.
        height: likewise.
        changes: some of `DEPTH`, `ALPHA`, `ORIENTATION`; the last also where it is applied.
    """

    width: int
    height: int
    changes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def short_side(self) -> int:
        """Pixels."""
        return min(self.width, self.height)

    def __str__(self) -> str:
        """One line, as in `500x375 alpha`, which `parse` reads."""
        return " ".join([f"{self.width}x{self.height}", *self.changes])

    @classmethod
    def parse(cls, text: str) -> ImageFacts:
        """The facts in a line; ValueError if there are none."""
        size, *changes = text.split(" ")
        width, height = map(int, size.split("x"))
        if not set(changes) <= {DEPTH, ALPHA, ORIENTATION}:
            raise ValueError(f"{text!r} says nothing of an image")
        return cls(width, height, tuple(changes))


class Decoded(NamedTuple):
    """An RGB image and what its file says."""

    image: Image.Image
    facts: ImageFacts


def decode_image(
    data: bytes, name: str, remedy: str, *, apply_orientation: bool = False
) -> Decoded:
    """The bytes of a whole JPEG, PNG, WEBP or BMP file as RGB; errors show `name` and `remedy`.

    Grey, two-colour and palette images become RGB, CMYK is converted without a colour profile,
    alpha is dropped, 16-bit grey v becomes round(v / 257), 16-bit colour keeps its high byte. Of an
    animation the first frame counts. Texts and profiles of a PNG are ignored, however large.

    With `apply_orientation` the image is turned as its EXIF tag says.

    Raises:
        BadImageError: another format, truncated, damaged, or more than `MAX_PIXELS` pixels.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: truncated images load half grey; unset it"
        )

    def decode(image: Image.Image) -> Decoded:
        image.load()
        facts = _facts(image, data, apply_orientation)
        turn = _TURNS.get(_orientation(image)) if apply_orientation else None
        rgb = _to_rgb(image)
        return Decoded(rgb if turn is None else rgb.transpose(turn), facts)

    return _read(data, name, remedy, decode)


def decode_facts(
    data: bytes, name: str, remedy: str, *, apply_orientation: bool = False
) -> ImageFacts:
    """What `decode_image` says of a file, off its first bytes; no pixel is decoded."""
    return _read(data, name, remedy, lambda image: _facts(image, data, apply_orientation))


def image_format(data: bytes, name: str, remedy: str) -> str:
    """One of `FORMATS`, off the first bytes of a file, or BadImageError."""
    return _read(data, name, remedy, lambda image: image.format or "")


@contextlib.contextmanager
def naming(name: str, remedy: str) -> Iterator[None]:
    """Let a BadImageError about a decoded image show its name and a remedy."""
    try:
        yield
    except BadImageError as error:
        raise BadImageError(f"{name}: {error}. {remedy}") from None


def check_pixels(width: int, height: int, what: str = "") -> None:
    """Raise BadImageError, without a name (see `naming`), for what would fill the memory."""
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{what}{width}x{height} is more than {MAX_PIXELS} pixels")


def _read(data: bytes, name: str, remedy: str, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of the image; a PNG is read again without its texts if that fails."""
    cause = ""
    for content in itertools.chain([data], _without_texts(data)):
        try:
            _check_webp(content)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                check_pixels(image.width, image.height)
                return use(image)
        except UnidentifiedImageError:
            cause = f"not a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        except _DECODE_ERRORS as error:
            cause = str(error) or type(error).__name__
    raise BadImageError(f"{name}: {cause} ({len(data)} bytes). {remedy}")


def _check_webp(data: bytes) -> None:
    """Refuse a WEBP file that is too large before Pillow opens it.

    Pillow's decoder takes two canvases of four bytes a pixel when it is made, and with the
    allocator of a training (`utils.machine.threads`) all of that memory is written at once.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < _WEBP_HEADER:
        return
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_pixels(width, height)


def _without_texts(data: bytes) -> Iterator[bytes]:
    """A PNG without its texts and profile; nothing if it is no PNG, or has none."""
    if not data.startswith(_PNG):
        return
    view, kept, start, place = memoryview(data), [], 0, len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(view[place : place + 4], "big")
        if view[place + 4 : place + 8] in _PNG_TEXTS:
            kept.append(view[start:place])
            start = end
        place = end
    if kept:
        yield b"".join([*kept, view[start:]])


def _facts(image: Image.Image, data: bytes, apply_orientation: bool) -> ImageFacts:
    orientation = _orientation(image)
    is_deep = image.mode.startswith("I") or (
        data.startswith(_PNG) and data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    )
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    found = {DEPTH: is_deep, ALPHA: has_alpha, ORIENTATION: orientation in _TURNS}
    width, height = image.size
    if apply_orientation and orientation in _SWAPPING:
        width, height = height, width
    return ImageFacts(width, height, tuple(kind for kind, is_there in found.items() if is_there))


def _orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 (upright) to 8; 1 without a readable one, which is no damage to pixels."""
    if "exif" in image.info or "Raw profile type exif" in image.info:
        with contextlib.suppress(*_DECODE_ERRORS):
            value = image.getexif().get(_ORIENTATION_TAG, 1)
            return value if isinstance(value, int) else 1
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImageError("integer values beyond 16 bits")
        return Image.fromarray(np.rint(values / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a transparent palette skips this
    return image.convert("RGB")
