"""Images as 8-bit arrays: files, crops, value ranges, PNG files, and where they lie.

Not for low-res images or any other degradation (a task decides those), not for decoding
(`utils.images.decode`), and not for tensors: numpy and Pillow only, so that decoding workers need
no torch. Arrays are HWC, RGB; `_uint8` means grey levels 0..255, float images lie in [-1, 1].
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import (
    SpecialFileError,
    StrPath,
    is_remote,
    read_up_to,
    write_bytes_atomic,
)
from utils.files.storage import problem_with_name
from utils.images.decode import (
    BadImageError,
    Decoded,
    ImageFacts,
    check_pixels,
    decode_facts,
    decode_image,
    naming,
)
from utils.process.errors import DataError

IMAGE_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
DEFAULT_EXTENSION = ".JPEG"
MAX_FILE_BYTES = 1 << 29
_HEADER_BYTES = 1 << 16
_REMEDY = "Get the file again, or take its name off the list of images"


def open_image(path: StrPath, *, apply_orientation: bool = False) -> Image.Image:
    """The RGB image of a whole file, local or remote; see `read_image`."""
    return read_image(path, apply_orientation=apply_orientation).image


def read_image(path: StrPath, *, apply_orientation: bool = False) -> Decoded:
    """Decode a whole file, local or remote, as RGB; see `decode_image`.

    Raises:
        FileNotFoundError: nothing is there.
        BadImageError: see `decode_image`; or there is a folder, a pipe or another special file, or
            a link to nothing.
    """
    data = _content(path, MAX_FILE_BYTES)
    return decode_image(data, os.fspath(path), _REMEDY, apply_orientation=apply_orientation)


class Crop(NamedTuple):
    """A crop, HWC uint8, and what the file that it is cut of says."""

    pixels: NDArray[np.uint8]
    facts: ImageFacts


def read_crop(
    path: StrPath,
    cut: Callable[[Image.Image], NDArray[np.uint8]],
    *,
    apply_orientation: bool = False,
) -> Crop:
    """What `cut` makes of a file's image, and what the file says of it.

    Raises:
        BadImageError: also for an image so narrow that it fills the memory before it is cut.
    """
    image, facts = read_image(path, apply_orientation=apply_orientation)
    with naming(os.fspath(path), _REMEDY):
        return Crop(cut(image), facts)


def _content(path: StrPath, max_bytes: int) -> bytes:
    name = os.fspath(path)
    try:
        return read_up_to(path, max_bytes)
    except SpecialFileError as error:
        raise BadImageError(f"{error}. {_REMEDY}") from None
    except IsADirectoryError:
        problem = "a folder, not an image"
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{name}: no such image; check data_dir and the list of images"
            ) from error
        problem = "a link to nothing"
    raise BadImageError(f"{name}: {problem}. {_REMEDY}")


def image_facts(path: StrPath, *, apply_orientation: bool = False) -> ImageFacts:
    """What `read_image` says of a file, and raises, off its first bytes; no pixel is decoded."""
    with contextlib.suppress(BadImageError):  # a header behind a long profile, say
        return _facts_in_first(_HEADER_BYTES, path, apply_orientation)
    return _facts_in_first(MAX_FILE_BYTES, path, apply_orientation)


def _facts_in_first(num_bytes: int, path: StrPath, apply_orientation: bool) -> ImageFacts:
    data = _content(path, num_bytes)
    return decode_facts(data, os.fspath(path), _REMEDY, apply_orientation=apply_orientation)


def center_crop_arr(pil_image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The centre square of an image, scaled so that its short side is `size`.

    Box halving while the short side is at least twice `size`, bicubic to `size`, then the crop:
    the pre-processing that the published models were trained with.

    Args:
        pil_image: RGB.
        size: pixels, at least 1.

    Returns:
        HWC uint8, (size, size, 3).
    """
    halved, (width, height) = _halved(pil_image, size)
    return _crop(halved, (width, height), ((width - size) // 2, (height - size) // 2), size)


def random_crop_arr(
    pil_image: Image.Image,
    size: int,
    rng: np.random.Generator,
    *,
    min_crop_frac: float = 0.8,
    max_crop_frac: float = 1.0,
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
    return _crop(halved, (width, height), (left, top), size)


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
    whole = pil_image.size
    while min(pil_image.size) >= 2 * short_side:
        half_size = (pil_image.width // 2, pil_image.height // 2)
        pil_image = pil_image.resize(half_size, resample=Image.Resampling.BOX)
    scale = short_side / min(pil_image.size)
    width, height = round(pil_image.width * scale), round(pil_image.height * scale)
    check_pixels(width, height, f"{whole[0]}x{whole[1]} at a short side of {short_side}, ")
    return pil_image, (width, height)


def _crop(
    halved: Image.Image, full_size: tuple[int, int], corner: tuple[int, int], size: int
) -> NDArray[np.uint8]:
    left, top = corner
    scaled = halved.resize(full_size, resample=Image.Resampling.BICUBIC)
    return np.array(scaled.crop((left, top, left + size, top + size)), dtype=np.uint8)


def write_png(path: StrPath, image_uint8: NDArray[np.uint8]) -> None:
    """Replace `path` by a PNG of a uint8 array, (H, W, 3) or (H, W); see `atomic_write`."""
    check_uint8(image_uint8)
    if image_uint8.ndim != 2 and (image_uint8.ndim != 3 or image_uint8.shape[2] != 3):
        raise ValueError(f"shape {image_uint8.shape}: a PNG takes (H, W, 3) or (H, W)")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_uint8)).save(buffer, format="PNG")
    write_bytes_atomic(path, buffer.getvalue())


def check_uint8(image: NDArray[Any]) -> None:
    """Raise ValueError for what is no array of grey levels."""
    if image.dtype != np.uint8:
        raise ValueError(
            f"dtype {image.dtype}: expected uint8 grey levels (see utils.images.pixels)"
        )


def resolve_image_path(data_dir: StrPath, name: str) -> str:
    """The path of the image that a list calls `name`.

    `.JPEG` is appended unless the name ends in one of `IMAGE_EXTENSIONS`, in any case. Symbolic
    links below `data_dir` may point elsewhere, as data sets made of links do.

    Raises:
        DataError: the name is not relative or could lead out of `data_dir`.
    """
    problem = problem_with_name(name)
    if problem is not None:
        raise DataError(f"image name {name!r} {problem}; rename the image")
    return os.path.join(os.fspath(data_dir), with_extension(name))


def with_extension(name: str) -> str:
    """The name of a file whose `.JPEG` may have been left off."""
    return name if name.lower().endswith(IMAGE_EXTENSIONS) else name + DEFAULT_EXTENSION


def safe_join(root: StrPath, name: str) -> str:
    """`root/name`; ValueError unless that lies under `root` also behind symbolic links."""
    problem = problem_with_name(name)
    joined = os.path.join(os.fspath(root), name)
    if problem is None and not is_remote(root):
        real_root = os.path.realpath(root)
        if os.path.commonpath([real_root, os.path.realpath(joined)]) != real_root:
            problem = "leads out of it through a symbolic link"
    if problem is not None:
        raise ValueError(f"name {name!r} under {os.fspath(root)}: {problem}")
    return joined


@dataclass(frozen=True)
class CenterCrop:
    """How a centre crop is made of a file.

    Attributes:
        data_dir: folder of the images.
        size: side of the crop, pixels.
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).
        apply_orientation: see `utils.images.decode.decode_image`.
    """

    data_dir: str
    size: int
    num_channels: int = 3
    apply_orientation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.size, self.size, self.num_channels

    def cut(self, name: str) -> Crop:
        """Cut the crop of an image.

        Raises:
            BadImageError: for a damaged image.
            FileNotFoundError: for none.
        """
        pixels, facts = read_crop(
            resolve_image_path(self.data_dir, name),
            lambda image: center_crop_arr(image, self.size),
            apply_orientation=self.apply_orientation,
        )
        return Crop(in_channels(pixels, self.num_channels), facts)


def in_channels(crop: NDArray[np.uint8], num_channels: int) -> NDArray[np.uint8]:
    """Return an RGB crop (H, W, 3) with 3 channels or 1; one that has them stays as it is."""
    if crop.shape[2] == num_channels:
        return crop
    return np.array(Image.fromarray(crop).convert("L"))[:, :, None]


class CropSource:
    """The centre crops of a list of images, cut from their files at every call."""

    def __init__(self, names: Sequence[str], recipe: CenterCrop) -> None:
        self._names, self._recipe = names, recipe

    def read(self, index: int) -> Crop:
        """Return the crop of the image at this place of the list, to keep.

        Raises:
            BadImageError: for a damaged image.
            DataError: for a damaged cache.
        """
        return self._recipe.cut(self._names[index])
