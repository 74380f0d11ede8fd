"""Images as 8-bit arrays: safe decoding, crops, value ranges, PNG files, and where they lie.

Not for low-res images or any other degradation (a task decides those), and not for tensors: numpy
and Pillow only, so that decoding workers need no torch. Arrays are HWC, RGB; `_uint8` means grey
levels 0..255, float images lie in [-1, 1].
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from utils.atomic_file import StrPath, is_remote, read_up_to, write_bytes_atomic
from utils.errors import DataError
from utils.resize_util import resized_square
from utils.safe_pickle import problem_with_name

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
IMAGE_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
DEFAULT_EXTENSION = ".JPEG"
# A quarter GiB of RGB: where Pillow starts to warn of a decompression bomb.
MAX_PIXELS = (1 << 28) // 3
MAX_FILE_BYTES = 1 << 29
HALF_RANGE_255 = 127.5
_HEADER_BYTES = 1 << 16
_REMEDY = "Get the file again, or take its name out of the info dict"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError)
_DECODE_ERRORS = (*_BOMBS, *_DAMAGE, struct.error, zlib.error)


class BadImageError(DataError):
    """A file is no whole image of a supported kind; the message names it, the cause, the remedy."""


def open_image(path: StrPath) -> Image.Image:
    """Decodes a whole file, local or remote, as RGB; see `decode_image`.

    Raises:
        FileNotFoundError: nothing is there.
        BadImageError: see `decode_image`; or there is a folder, or a link to nothing.
    """
    return decode_image(_content(path, MAX_FILE_BYTES), os.fspath(path), _REMEDY)


def _content(path: StrPath, max_bytes: int) -> bytes:
    name = os.fspath(path)
    try:
        return read_up_to(path, max_bytes)
    except IsADirectoryError:
        problem = "a folder, not an image"
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{name}: no such image; check data_dir and the names in the info dict"
            ) from error
        problem = "a link to nothing"
    raise BadImageError(f"{name}: {problem}. {_REMEDY}")


def image_size(path: StrPath) -> tuple[int, int]:
    """(width, height) of what `open_image` gives, off the first bytes; no pixel is decoded.

    Raises:
        FileNotFoundError: nothing is there.
        BadImageError: another format, no whole header, more than `MAX_PIXELS` pixels, or no file.
    """
    with contextlib.suppress(BadImageError):  # a header behind a long profile, say
        return _size_in_first(_HEADER_BYTES, path)
    return _size_in_first(MAX_FILE_BYTES, path)


def _size_in_first(num_bytes: int, path: StrPath) -> tuple[int, int]:
    with _opened(_content(path, num_bytes), os.fspath(path), _REMEDY) as image:
        return image.size


def decode_image(data: bytes, name: str, remedy: str) -> Image.Image:
    """The bytes of a whole JPEG, PNG, WEBP or BMP file as RGB; errors show `name` and `remedy`.

    Grey, two-colour and palette images become RGB, CMYK is converted without a colour profile,
    alpha is dropped, 16-bit grey v becomes round(v / 257), 16-bit colour keeps its high byte. Of an
    animation the first frame counts. Orientation tags are not applied.

    Raises:
        BadImageError: another format, truncated, damaged, or more than `MAX_PIXELS` pixels.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: truncated images load half grey; unset it"
        )
    with _opened(data, name, remedy) as image:
        image.load()
        return _to_rgb(image)


@contextlib.contextmanager
def _opened(data: bytes, name: str, remedy: str) -> Iterator[Image.Image]:
    """An image whose header was read; errors in it and in the block name file and remedy."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image.width, image.height)
            yield image
            return
    except UnidentifiedImageError:
        cause = f"not a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    except _DECODE_ERRORS as error:
        cause = str(error) or type(error).__name__
    raise BadImageError(f"{name}: {cause} ({len(data)} bytes). {remedy}")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width}x{height} is more than {MAX_PIXELS} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImageError("integer values beyond 16 bits")
        return Image.fromarray(np.rint(values / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a transparent palette skips this
    return image.convert("RGB")


def center_crop_arr(
    pil_image: Image.Image, size: int, *, is_fast: bool = False
) -> NDArray[np.uint8]:
    """The centre square of an image, scaled so that its short side is `size`.

    Box halving while the short side is at least twice `size`, bicubic to `size`, then the crop:
    the pre-processing that the published samplers were trained with.

    Args:
        pil_image: RGB.
        size: pixels, at least 1.
        is_fast: resize the square alone: a few values differ by a grey level, see `resize_util`.

    Returns:
        HWC uint8, (size, size, 3).
    """
    halved, (width, height) = _halved(pil_image, size)
    return _crop(
        halved, (width, height), ((width - size) // 2, (height - size) // 2), size, is_fast
    )


def random_crop_arr(
    pil_image: Image.Image,
    size: int,
    rng: np.random.Generator,
    *,
    min_crop_frac: float = 0.8,
    max_crop_frac: float = 1.0,
    is_fast: bool = False,
) -> NDArray[np.uint8]:
    """A random square of an image at a random scale; a function of the image and `rng` alone.

    The short side is scaled to a uniform integer between size / max_crop_frac and
    size / min_crop_frac, both rounded up, and the square's place is uniform.

    Args:
        pil_image: RGB.
        size: pixels, at least 1.
        rng: its state advances by three draws.
        min_crop_frac: smallest share of the short side that the crop covers.
        max_crop_frac: largest share, at most 1.
        is_fast: as for `center_crop_arr`.

    Returns:
        HWC uint8, (size, size, 3).
    """
    if not 0.0 < min_crop_frac <= max_crop_frac <= 1.0:
        raise ValueError(
            f"crop fractions {min_crop_frac} and {max_crop_frac}: need 0 < min <= max <= 1"
        )
    shortest, longest = (math.ceil(size / frac) for frac in (max_crop_frac, min_crop_frac))
    short_side = int(rng.integers(shortest, longest + 1))
    halved, (width, height) = _halved(pil_image, short_side)
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    return _crop(halved, (width, height), (left, top), size, is_fast)


def random_flip(image_uint8: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image or, with probability 1/2, its mirror image (left-right); HWC, a contiguous copy."""
    is_flipped = rng.random() < 0.5
    return np.array(image_uint8[:, ::-1] if is_flipped else image_uint8, order="C")


def _halved(pil_image: Image.Image, short_side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The image after the box halvings, and the (width, height) that it is to be resized to."""
    if short_side < 1:
        raise ValueError(f"image size {short_side}: give at least 1 pixel")
    if pil_image.mode != "RGB":
        raise ValueError(f"image mode {pil_image.mode!r}: convert to RGB first (see open_image)")
    while min(pil_image.size) >= 2 * short_side:
        half_size = (pil_image.width // 2, pil_image.height // 2)
        pil_image = pil_image.resize(half_size, resample=Image.Resampling.BOX)
    scale = short_side / min(pil_image.size)
    width, height = round(pil_image.width * scale), round(pil_image.height * scale)
    _check_pixels(width, height)
    return pil_image, (width, height)


def _crop(
    halved: Image.Image,
    full_size: tuple[int, int],
    corner: tuple[int, int],
    size: int,
    is_fast: bool,
) -> NDArray[np.uint8]:
    left, top = corner
    if is_fast:
        square = resized_square(halved, full_size, left, top, size)
    else:
        scaled = halved.resize(full_size, resample=Image.Resampling.BICUBIC)
        square = scaled.crop((left, top, left + size, top + size))
    return np.array(square, dtype=np.uint8)


def write_png(path: StrPath, image_uint8: NDArray[np.uint8]) -> None:
    """Replaces `path` by a PNG of an HWC (3 channels) or HW array, complete or not at all.

    Raises:
        ValueError: another dtype or shape.
        StorageError: see `atomic_write`.
    """
    check_uint8(image_uint8)
    if image_uint8.ndim != 2 and (image_uint8.ndim != 3 or image_uint8.shape[2] != 3):
        raise ValueError(f"shape {image_uint8.shape}: a PNG takes (H, W, 3) or (H, W)")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_uint8)).save(buffer, format="PNG")
    write_bytes_atomic(path, buffer.getvalue())


def check_uint8(image: NDArray[Any]) -> None:
    """Refuses what is no array of grey levels.

    Raises:
        ValueError: names its dtype.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"dtype {image.dtype}: expected uint8 grey levels (see utils.pixel_util)")


def resolve_image_path(data_dir: StrPath, name: str) -> str:
    """The path of the image that an info dict calls `name`.

    `.JPEG` is appended unless the name ends in one of `IMAGE_EXTENSIONS`, in any case. Symbolic
    links below `data_dir` may point elsewhere, as data sets made of links do.

    Raises:
        DataError: the name is not relative or could lead out of `data_dir`.
    """
    problem = problem_with_name(name)
    if problem is not None:
        raise DataError(f"image name {name!r} {problem}")
    return os.path.join(os.fspath(data_dir), with_extension(name))


def with_extension(name: str) -> str:
    """The name of a file whose `.JPEG` may have been left off."""
    return name if name.lower().endswith(IMAGE_EXTENSIONS) else name + DEFAULT_EXTENSION


def safe_join(root: StrPath, name: str) -> str:
    """`root/name`, if that lies under `root` also when symbolic links are followed.

    Raises:
        ValueError: it does not; nothing may be written there.
    """
    problem = problem_with_name(name)
    joined = os.path.join(os.fspath(root), name)
    if problem is None and not is_remote(root):
        real_root = os.path.realpath(root)
        if os.path.commonpath([real_root, os.path.realpath(joined)]) != real_root:
            problem = "leads out of it through a symbolic link"
    if problem is not None:
        raise ValueError(f"name {name!r} under {os.fspath(root)}: {problem}")
    return joined
