"""Images that come in: one file becomes pixels with a range, and words on what did not reach them.

All that knows formats of images is here; the rest works on `LowRes`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from utils.files.atomic import is_remote, read_up_to
from utils.images.files import (
    ALPHA,
    DEPTH,
    MAX_FILE_BYTES,
    BadImageError,
    decode_image,
)
from utils.images.folder import list_files
from utils.metrics import WHITE
from utils.process.errors import DataError

Log = Callable[[str], None]
_REMEDY = "Get the file again, or take it out of --input"
_LOSSES = {
    DEPTH: "its 16 bits a value become 8",
    ALPHA: "its alpha channel is left out, the networks see the colours alone",
}


@dataclass(frozen=True)
class LowRes:
    """A low-res image as the networks are to see it.

    Attributes:
        pixels: (h, w, C), of any real type.
        low: the value that is -1 to the networks, in units of the image.
        high: the value that is 1 to them.
        notices: what of the file does not reach the pixels.
        digest: sha256 of the file; empty for an image of the memory.
    """

    pixels: npt.NDArray[Any]
    low: float = 0.0
    high: float = float(WHITE)
    notices: tuple[str, ...] = ()
    digest: str = ""

    @property
    def half(self) -> float:
        """Half of the range: what a step of 1 of a network is in units of the image."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class InputFile:
    """One image to work on: where it lies, and the name of its results."""

    path: str
    name: str


def find_inputs(place: str, log: Log, flag: str = "--input") -> list[InputFile]:
    """The image at a path, or all below a folder, sorted; `flag` named it.

    A result is named as its image without the ending; with it where two images differ in nothing
    else. `log` receives what is left out.

    Raises:
        DataError: nothing is there, or no image.
    """
    if is_remote(place):
        raise DataError(f"{flag} {place} is remote; copy the images to this machine")
    if not os.path.isdir(place):
        if not os.path.lexists(place):
            raise DataError(f"{flag} {place} does not exist; name an image or a folder of images")
        return [InputFile(place, os.path.splitext(os.path.basename(place))[0])]
    files = list_files(place, log, flag)
    stems = [os.path.splitext(file)[0] for file in files]
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem] = counts.get(stem, 0) + 1
    return [
        InputFile(os.path.join(place, file), stem if counts[stem] == 1 else file)
        for file, stem in zip(files, stems, strict=True)
    ]


def digest_of(path: str) -> str:
    """The sha256 of an image's file.

    Raises:
        BadImageError: it cannot be read.
    """
    return hashlib.sha256(_content(path)).hexdigest()


def read_low_res(path: str, num_channels: int, *, apply_orientation: bool) -> LowRes:
    """Read a whole file as the image that networks of so many channels see.

    Raises:
        BadImageError: no whole image, too large, or of other channels.
    """
    data = _content(path)
    with warnings.catch_warnings():  # of bombs, which are refused in one line
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image, facts = decode_image(data, path, _REMEDY, apply_orientation=apply_orientation)
    pixels = np.asarray(image)
    if pixels.shape[2] != num_channels:
        raise BadImageError(
            f"{path} has {pixels.shape[2]} channels, the networks take {num_channels}; give "
            "images as they were trained on"
        )
    notices = [words for kind, words in _LOSSES.items() if kind in facts.changes]
    if is_grey(pixels):
        notices.append(f"it is grey: each of the {num_channels} channels sees the same")
    return LowRes(pixels, notices=tuple(notices), digest=hashlib.sha256(data).hexdigest())


def is_grey(pixels: npt.NDArray[Any]) -> bool:
    """Whether the channels of (h, w, C), more than one, are equal everywhere."""
    first = pixels[..., :1]
    # most images of colours differ in their first rows
    return pixels.shape[2] > 1 and all(
        bool((part == first[rows]).all()) for rows, part in _strips(pixels)
    )


def _strips(pixels: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    for start in range(0, len(pixels), 64):
        rows = slice(start, start + 64)
        yield rows, pixels[rows]


def _content(path: str) -> bytes:
    try:
        return read_up_to(path, MAX_FILE_BYTES)
    except IsADirectoryError:
        raise BadImageError(f"{path}: a folder, not an image. {_REMEDY}") from None
    except FileNotFoundError:
        raise BadImageError(f"{path}: no such file. {_REMEDY}") from None
    except DataError as error:
        raise BadImageError(f"{error}. {_REMEDY}") from None
