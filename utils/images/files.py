"""Images as 8-bit arrays: bytes to RGB, files, crops, PNG files, and where they lie.

All that makes a file a damaged image is decided here; a low-res image or any other degradation is
the business of a task. Numpy and Pillow only, so that decoding workers need no torch. Arrays are
HWC, RGB; `_uint8` means grey levels 0..255.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from utils.files.atomic import SpecialFileError, StrPath, is_remote, read_up_to
from utils.files.storage import problem_with_name
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# A quarter GiB of RGB: where Pillow starts to warn of a decompression bomb.
MAX_PIXELS = (1 << 28) // 3
# What of a file does not reach its RGB pixels; an orientation does where it is asked for.
DEPTH, ALPHA, ORIENTATION, PAGES = "16-bit", "alpha", "orientation", "pages"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError)
_DECODE_ERRORS = (*_BOMBS, *_DAMAGE, struct.error, zlib.error)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
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
        changes: some of `DEPTH`, `ALPHA`, `PAGES`, `ORIENTATION`; this also where it is applied.
    """

    width: int
    height: int
    changes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def covers(self, size: SizeLike) -> bool:
        """Whether a crop of the size can be cut of it without enlarging."""
        height, width = Size.of(size)
        return self.height >= height and self.width >= width

    def __str__(self) -> str:
        """One line, as in `500x375 alpha`, which `parse` reads."""
        return " ".join([f"{self.width}x{self.height}", *self.changes])

    @classmethod
    def parse(cls, text: str) -> ImageFacts:
        """The facts in a line; ValueError if there are none."""
        size, *changes = text.split(" ")
        width, height = map(int, size.split("x"))
        if not set(changes) <= {DEPTH, ALPHA, ORIENTATION, PAGES}:
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
    require_whole_images()

    def decode(image: Image.Image) -> Decoded:
        image.load()
        facts = _facts(image, data, apply_orientation)
        turn = _TURNS.get(orientation_of(image)) if apply_orientation else None
        rgb = _to_rgb(image)
        return Decoded(rgb if turn is None else rgb.transpose(turn), facts)

    return with_pillow(data, name, remedy, decode)


def require_whole_images() -> None:
    """Raise ValueError where somebody told Pillow to fill truncated images with grey."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: truncated images load half grey; unset it"
        )


def decode_facts(
    data: bytes, name: str, remedy: str, *, apply_orientation: bool = False
) -> ImageFacts:
    """What `decode_image` says of a file, off its first bytes; no pixel is decoded."""
    return with_pillow(data, name, remedy, lambda image: _facts(image, data, apply_orientation))


def image_format(data: bytes, name: str, remedy: str) -> str:
    """One of `FORMATS`, off the first bytes of a file, or BadImageError."""
    return with_pillow(data, name, remedy, lambda image: image.format or "")


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


def with_pillow(data: bytes, name: str, remedy: str, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of the opened image; a PNG is read again without its texts if that fails.

    BadImageError for whatever Pillow or `use` stumbles over; it shows `name` and `remedy`.
    """
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
    if not data.startswith(PNG_MAGIC):
        return
    view, kept, start, place = memoryview(data), [], 0, len(PNG_MAGIC)
    while place < len(data):
        end = place + 12 + int.from_bytes(view[place : place + 4], "big")
        if view[place + 4 : place + 8] in _PNG_TEXTS:
            kept.append(view[start:place])
            start = end
        place = end
    if kept:
        yield b"".join([*kept, view[start:]])


def _facts(image: Image.Image, data: bytes, apply_orientation: bool) -> ImageFacts:
    orientation = orientation_of(image)
    is_deep = image.mode.startswith("I") or (
        data.startswith(PNG_MAGIC) and data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    )
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    found = {DEPTH: is_deep, ALPHA: has_alpha, ORIENTATION: orientation in _TURNS}
    width, height = image.size
    if apply_orientation and orientation in _SWAPPING:
        width, height = height, width
    return ImageFacts(width, height, tuple(kind for kind, is_there in found.items() if is_there))


def orientation_of(image: Image.Image) -> int:
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
    return image if image.mode == "RGB" else image.convert("RGB")


IMAGE_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
# read in their own numbers alone (utils.images.native)
NATIVE_ONLY = (".tif", ".tiff", ".npy")
ALL_EXTENSIONS = IMAGE_EXTENSIONS + NATIVE_ONLY
DEFAULT_EXTENSION = ".JPEG"
MAX_FILE_BYTES = 1 << 29
_HEADER_BYTES = 1 << 16
REMEDY = "Get the file again, or take its name off the list of images"


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
    data = read_content(path, MAX_FILE_BYTES)
    return decode_image(data, os.fspath(path), REMEDY, apply_orientation=apply_orientation)


class Crop(NamedTuple):
    """A crop, HWC (uint8, or float32 of `NativeCrop`), and what the file it is cut of says."""

    pixels: NDArray[Any]
    facts: ImageFacts


def read_crop(
    path: StrPath,
    cut: Callable[[Image.Image], NDArray[Any]],
    *,
    apply_orientation: bool = False,
) -> Crop:
    """What `cut` makes of a file's image, and what the file says of it.

    Raises:
        BadImageError: also for an image so narrow that it fills the memory before it is cut.
    """
    image, facts = read_image(path, apply_orientation=apply_orientation)
    with naming(os.fspath(path), REMEDY):
        return Crop(cut(image), facts)


def read_content(path: StrPath, max_bytes: int) -> bytes:
    """The first bytes of a file; FileNotFoundError or BadImageError as `read_image`."""
    name = os.fspath(path)
    try:
        return read_up_to(path, max_bytes)
    except SpecialFileError as error:
        raise BadImageError(f"{error}. {REMEDY}") from None
    except IsADirectoryError:
        problem = "a folder, not an image"
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{name}: no such image; check data_dir and the list of images"
            ) from error
        problem = "a link to nothing"
    raise BadImageError(f"{name}: {problem}. {REMEDY}")


def image_facts(path: StrPath, *, apply_orientation: bool = False) -> ImageFacts:
    """What `read_image` says of a file, and raises, off its first bytes; no pixel is decoded."""

    def facts_in_first(num_bytes: int) -> ImageFacts:
        data = read_content(path, num_bytes)
        return decode_facts(data, os.fspath(path), REMEDY, apply_orientation=apply_orientation)

    with contextlib.suppress(BadImageError):  # a header behind a long profile, say
        return facts_in_first(_HEADER_BYTES)
    return facts_in_first(MAX_FILE_BYTES)


def center_crop_arr(pil_image: Image.Image, size: SizeLike) -> NDArray[Any]:
    """The centre of an image (a square for one number), scaled so that `size` just covers it.

    Box halving while both sides are at least twice those of `size`, bicubic to the smallest image
    that holds it, then the crop: for squares the pre-processing that the published models were
    trained with. The result is HWC uint8, (H, W, 3); of an image in float (mode F) float32, (H, W).
    """
    crop = Size.of(size)
    halved, (width, height) = _halved(pil_image, crop)
    corner = (width - crop.width) // 2, (height - crop.height) // 2
    return cut_out(halved.resize((width, height), Image.Resampling.BICUBIC), corner, crop)


def random_crop_arr(
    pil_image: Image.Image,
    size: SizeLike,
    rng: np.random.Generator,
    *,
    min_crop_frac: float = 0.8,
    max_crop_frac: float = 1.0,
) -> NDArray[Any]:
    """A random piece of an image at a random scale; a function of the image and `rng` alone.

    The image is scaled to just hold an area of the shape of `size` whose short side is a uniform
    integer between those of size / max_crop_frac and size / min_crop_frac, both rounded up; the
    place of the crop is uniform.

    The fractions are the smallest and largest share of that area's sides that the crop covers; the
    state of `rng` advances by three draws. The result is that of `center_crop_arr`.
    """
    if not 0.0 < min_crop_frac <= max_crop_frac <= 1.0:
        raise ValueError(
            f"crop fractions {min_crop_frac} and {max_crop_frac}: need 0 < min <= max <= 1"
        )
    crop, ends = Size.of(size), (max_crop_frac, min_crop_frac)
    shortest, longest = (math.ceil(crop.short_side / frac) for frac in ends)
    short_side = int(rng.integers(shortest, longest + 1))
    area = Size(*(-(-side * short_side // crop.short_side) for side in crop))
    halved, (width, height) = _halved(pil_image, area)
    top = int(rng.integers(height - crop.height + 1))
    left = int(rng.integers(width - crop.width + 1))
    return cut_out(halved.resize((width, height), Image.Resampling.BICUBIC), (left, top), crop)


def _halved(pil_image: Image.Image, area: Size) -> tuple[Image.Image, tuple[int, int]]:
    """The image after the box halvings, and (width, height) of the smallest that holds the area."""
    if area.short_side < 1:
        raise ValueError(f"image size {area}: give at least 1 pixel")
    if pil_image.mode not in ("RGB", "F"):
        raise ValueError(f"image mode {pil_image.mode!r}: convert to RGB first (see open_image)")
    whole = pil_image.size
    while pil_image.height >= 2 * area.height and pil_image.width >= 2 * area.width:
        half_size = (pil_image.width // 2, pil_image.height // 2)
        pil_image = pil_image.resize(half_size, resample=Image.Resampling.BOX)
    scale = max(area.height / pil_image.height, area.width / pil_image.width)
    width, height = round(pil_image.width * scale), round(pil_image.height * scale)
    check_pixels(width, height, f"{whole[0]}x{whole[1]} at a size that holds {area}, ")
    return pil_image, (width, height)


def cut_out(image: Image.Image, corner: tuple[int, int], size: Size) -> NDArray[Any]:
    """The piece of an image whose first pixel lies at `corner`, (left, top), as an array."""
    left, top = corner
    return np.array(image.crop((left, top, left + size.width, top + size.height)))


def resolve_image_path(data_dir: StrPath, name: str) -> str:
    """The path of the image that a list calls `name`.

    `.JPEG` is appended unless the name ends in one of `ALL_EXTENSIONS`, in any case. Symbolic
    links below `data_dir` may point elsewhere, as data sets made of links do. A name that is not
    relative, or could lead out of `data_dir`, is a DataError.
    """
    problem = problem_with_name(name)
    if problem is not None:
        raise DataError(f"image name {name!r} {problem}; rename the image")
    return os.path.join(os.fspath(data_dir), with_extension(name))


def with_extension(name: str) -> str:
    """The name of a file whose `.JPEG` may have been left off."""
    return name if name.lower().endswith(ALL_EXTENSIONS) else name + DEFAULT_EXTENSION


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


def in_channels(crop: NDArray[Any], num_channels: int) -> NDArray[Any]:
    """Return an RGB crop (H, W, 3) with 3 channels or 1; one that has them stays as it is."""
    if crop.shape[2] == num_channels:
        return crop
    return np.array(Image.fromarray(crop).convert("L"))[:, :, None]
