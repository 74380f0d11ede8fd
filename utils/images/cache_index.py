"""The files of a crop cache: which crop is in which row, of which file it was cut, and how.

Not for cutting crops or handing them out: that is ``utils.images.cache``. A cache only grows. Rows
are on
the disk before the lines that name them, so whatever a killed process leaves behind the last whole
line counts as not there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import is_remote
from utils.files.json import parse_json
from utils.files.records import require_same_settings
from utils.images.decode import ImageFacts
from utils.images.files import center_crop_arr, read_crop, resolve_image_path
from utils.machine.threads import num_cores
from utils.process.errors import DataError

DATA_FILE, INDEX_FILE, SETTINGS_FILE, LOCK_FILE = (
    "crops.u8",
    "index.jsonl",
    "settings.json",
    ".lock",
)
_FORMAT = 2
Stamp = tuple[int, int]
# of many images few sizes: equal ones share an object
_facts_in = functools.lru_cache(maxsize=1 << 16)(ImageFacts.parse)
# a remote store has no time that is cheap to ask for: only the name counts there
NO_STAMP: Stamp = (-1, -1)


class Crop(NamedTuple):
    """A crop, HWC uint8, and what the file that it is cut of says."""

    pixels: NDArray[np.uint8]
    facts: ImageFacts


@dataclass(frozen=True)
class CenterCrop:
    """How a centre crop is made of a file.

    Attributes:
        data_dir: folder of the images.
        size: side of the crop, pixels.
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).
        is_fast: see ``utils.images.files.center_crop_arr``.
        apply_orientation: see ``utils.images.decode.decode_image``.
    """

    data_dir: str
    size: int
    num_channels: int = 3
    is_fast: bool = False
    apply_orientation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.size, self.size, self.num_channels

    @property
    def num_bytes(self) -> int:
        """Of a crop."""
        return self.size * self.size * self.num_channels

    def cut(self, name: str) -> Crop:
        """The crop of an image.

        Raises:
            BadImageError: for a damaged image.
            FileNotFoundError: for none.
        """
        pixels, facts = read_crop(
            resolve_image_path(self.data_dir, name),
            lambda image: center_crop_arr(image, self.size, is_fast=self.is_fast),
            apply_orientation=self.apply_orientation,
        )
        return Crop(in_channels(pixels, self.num_channels), facts)

    def settings(self) -> dict[str, Any]:
        """What the values of a crop depend on, beside the file."""
        local = self.data_dir if is_remote(self.data_dir) else os.path.realpath(self.data_dir)
        return {
            "format": _FORMAT,
            "data_dir": local,
            "size": self.size,
            "channels": self.num_channels,
            "fast_crop": self.is_fast,
            "apply_orientation": self.apply_orientation,
            "pillow": PIL.__version__,
        }

    def folder(self, cache_dir: str) -> str:
        """Where the crops are kept: other settings, another folder."""
        text = json.dumps(self.settings(), sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        kind = f"{self.size}x{self.num_channels}{'_fast' if self.is_fast else ''}"
        return os.path.join(cache_dir, f"{kind}_{digest}")


def in_channels(crop: NDArray[np.uint8], num_channels: int) -> NDArray[np.uint8]:
    """An RGB crop (H, W, 3) with 3 channels or 1; one that has them already stays as it is."""
    if crop.shape[2] == num_channels:
        return crop
    return np.array(Image.fromarray(crop).convert("L"))[:, :, None]


@dataclass(frozen=True)
class Record:
    """A line of the index.

    Attributes:
        row: of the crop; -1: the image is damaged.
        crc: CRC-32 of the crop's bytes.
        stamp: size and time of change (ns) of the image's file.
        problem: what is wrong with the image.
        facts: what its file says; None of a damaged one.
    """

    row: int
    crc: int
    stamp: Stamp
    problem: str = ""
    facts: ImageFacts | None = None

    def line(self, name: str) -> str:
        """As it stands in the file."""
        facts = "" if self.facts is None else str(self.facts)
        return json.dumps([name, self.row, self.crc, *self.stamp, self.problem, facts]) + "\n"


@dataclass
class Index:
    """What a cache holds.

    Attributes:
        records: by image name.
        num_rows: crops that the data file must hold.
        num_bytes: of whole lines in the index file.
    """

    records: dict[str, Record]
    num_rows: int = 0
    num_bytes: int = 0

    def missing(self, images: Sequence[tuple[str, Stamp]]) -> list[tuple[str, Stamp]]:
        """The images without a crop, each once; damaged ones count when they have been mended.

        Raises:
            DataError: if an image has changed since its crop was cut.
        """
        found: dict[str, Stamp] = {}
        for name, stamp in images:
            record = self.records.get(name)
            if record is None or (record.row < 0 and record.stamp != stamp):
                found[name] = stamp
            elif record.stamp != stamp:
                raise DataError(f"image {name} has changed since its crop was cached")
        return list(found.items())


def read_index(folder: str, recipe: CenterCrop) -> Index:
    """The index of a cache; empty where there is none.

    Raises:
        DataError: if it or the data file is damaged, or of other settings.
    """
    index = Index({})
    try:
        with open(os.path.join(folder, INDEX_FILE), "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return index
    path = os.path.join(folder, SETTINGS_FILE)
    require_same_settings(path, recipe.settings(), defaults={}, folder_flag="--cache_dir")
    index.num_bytes = content.rfind(b"\n") + 1
    for number, line in enumerate(content[: index.num_bytes].splitlines(), 1):
        _add(index, line, number)
    data_file = os.path.join(folder, DATA_FILE)
    size = os.path.getsize(data_file) if os.path.exists(data_file) else 0
    if size < index.num_rows * recipe.num_bytes:
        expected = index.num_rows * recipe.num_bytes
        raise DataError(f"{DATA_FILE} has {size} bytes of {expected}")
    return index


def _add(index: Index, line: bytes, number: int) -> None:
    try:
        name, row, crc, size, changed, problem, said = parse_json(line)
        numbers = [int(value) for value in (row, crc, size, changed)]
        if not isinstance(name, str) or numbers[0] not in (-1, index.num_rows):
            raise ValueError("no such line is written")
        facts = _facts_in(str(said)) if numbers[0] >= 0 else None
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{INDEX_FILE}, line {number} is damaged") from None
    stamp = numbers[2], numbers[3]
    index.records[name] = Record(numbers[0], numbers[1], stamp, str(problem), facts)
    index.num_rows += numbers[0] >= 0


def file_stamps(names: Sequence[str], data_dir: str) -> list[Stamp]:
    """Size and time of change of every image's file, in the order of the names.

    Raises:
        FileNotFoundError: for an image that is not there.
    """
    if is_remote(data_dir):
        return [NO_STAMP] * len(names)
    num_threads = 4 * num_cores()  # a network file system answers slowly, but many at a time

    def ask(first: int) -> list[Stamp]:
        return [_stamp(resolve_image_path(data_dir, name)) for name in names[first::num_threads]]

    stamps = [NO_STAMP] * len(names)
    with ThreadPoolExecutor(num_threads) as pool:
        for first, share in enumerate(pool.map(ask, range(num_threads))):
            stamps[first::num_threads] = share
    return stamps


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{path}: no such image; check data_dir and the names in the info dict"
            ) from error
        status = os.lstat(path)  # a link to nothing is a damaged image, until it is mended
    return status.st_size, status.st_mtime_ns
