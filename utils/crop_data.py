"""Images on disk → uint8 crops, for training (shuffled, augmented) and for tests (in order).

The crop is all that happens here; what a network sees is made of it on the device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.atomic_file import is_remote
from utils.crop_cache import CropSource, DecodedCrops, crop_source
from utils.crop_index import CenterCrop, in_channels
from utils.data_flags import CropFlags
from utils.data_util import ItemKey
from utils.errors import DataError
from utils.identity import list_digest
from utils.image_util import (
    BadImageError,
    open_image,
    random_crop_arr,
    random_flip,
    resolve_image_path,
)
from utils.random_util import item_rng
from utils.safe_pickle import load_info_dict


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        name: relative to ``data_dir``; also its output folder.
        y: its label.
        group: key of its class in the info dict.
        fold: of cross-fitting (``sr_var.cross_fit``).
    """

    name: str
    y: int
    group: str = field(default="", compare=False)
    fold: int = field(default=0, compare=False)


def listed_entries(
    data_info_dict_path: str, data_dir: str, flag: str = "--data_info_dict_path"
) -> list[Entry]:
    """All images of an info dict, in the dict's order.

    Args:
        data_info_dict_path: the pickle.
        data_dir: the folder of the images.
        flag: which named the pickle, for messages.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    try:
        info = load_info_dict(data_info_dict_path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        problem = "is a folder" if isinstance(error, IsADirectoryError) else "does not exist"
        raise DataError(
            f"{flag} {data_info_dict_path or repr('')} {problem}; name a pickle that lists images, "
            "as sr_data_info.py writes it"
        ) from None
    if not is_remote(data_dir) and not os.path.isdir(data_dir):
        raise DataError(f"--data_dir {data_dir} is not a folder; point it at the images")
    return [
        Entry(name, item["y"], group) for group, item in info.items() for name in item["file_names"]
    ]


def check_labels(entries: Sequence[Entry], num_classes: int | None) -> None:
    """Refuses labels that a class-conditional model (``num_classes`` not None) does not know.

    Raises:
        DataError: names the first such image and the remedy.
    """
    if num_classes is None:
        return
    for entry in entries:
        if not 0 <= entry.y < num_classes:
            raise DataError(
                f"{entry.name} has label {entry.y}, the model knows 0 to {num_classes - 1}; see "
                "--num_classes, or use --class_cond False"
            )


def _to_chw(crop: np.ndarray[Any, Any], num_channels: int) -> torch.Tensor:
    crop = in_channels(crop, num_channels)
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))  # HWC → CHW


class CropDataset(Dataset[dict[str, Any]]):
    """Square uint8 crops by stream key; bad images raise, or are replaced by the next good one.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        flags: where the files are and how to augment.
        seed: of the augmentation, a function of (seed, epoch, index).
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).

    Raises:
        DataError, StopRequested: with ``flags.cache_dir``, see ``crop_cache.crop_source``.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        size: int,
        flags: CropFlags,
        seed: int,
        num_channels: int = 3,
    ) -> None:
        self._entries, self._size, self._flags, self._seed = entries, size, flags, seed
        self._num_channels = num_channels
        self._source = _source(entries, size, flags, num_channels)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """The images."""
        return self._entries

    def listing(self) -> dict[str, Any]:
        """What tells these images and labels from others."""
        return list_digest([(entry.name, entry.y) for entry in self._entries])

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        """``high_res`` (C, size, size) uint8, ``y``, ``fold``, ``position``; ``bad``: skipped."""
        position, epoch, index = key
        bad: list[str] = []
        while True:
            place = (index + len(bad)) % len(self._entries)
            entry = self._entries[place]
            try:
                crop = self._read(place, (epoch, index))
                break
            except BadImageError:
                bad.append(entry.name)
                if self._flags.on_bad_image == "error" or len(bad) == len(self._entries):
                    raise
        return {
            "high_res": _to_chw(crop, self._num_channels),
            "y": entry.y,
            "fold": entry.fold,
            "position": position,
            "bad": "\n".join(bad),
        }

    def _read(self, place: int, key: tuple[int, int]) -> np.ndarray[Any, Any]:
        flags = self._flags
        if not (flags.random_crop or flags.random_flip):
            return self._source.read(place)
        rng = item_rng(self._seed, *key)
        if flags.random_crop:
            image = open_image(resolve_image_path(flags.data_dir, self._entries[place].name))
            crop = random_crop_arr(image, self._size, rng, is_fast=flags.fast_crop)
        else:
            crop = self._source.read(place)
        return random_flip(crop, rng) if flags.random_flip else crop


def _source(entries: Sequence[Entry], size: int, flags: CropFlags, num_channels: int) -> CropSource:
    recipe = CenterCrop(flags.data_dir, size, num_channels, flags.fast_crop)
    return crop_source([entry.name for entry in entries], recipe, flags)


class TestCrops(Dataset[dict[str, Any]]):
    """Centre crops in order; a bad image raises, or its item is None.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        data_dir: where the files are.
        on_bad_image: ``error`` or ``skip``.
        num_channels: 3, or 1 for grey levels.
        source: of the same images' crops; None: decoded from their files.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        entries: Sequence[Entry],
        size: int,
        data_dir: str,
        on_bad_image: str = "error",
        num_channels: int = 3,
        source: CropSource | None = None,
    ) -> None:
        self._entries, self._num_channels = entries, num_channels
        self._on_bad_image = on_bad_image
        names = [entry.name for entry in entries]
        self._source = source or DecodedCrops(names, CenterCrop(data_dir, size, num_channels))

    @classmethod
    def from_flags(
        cls, entries: Sequence[Entry], size: int, flags: CropFlags, num_channels: int = 3
    ) -> TestCrops:
        """The crops as the flags want them, out of the cache where they name one.

        Raises:
            DataError, StopRequested: with ``flags.cache_dir``, see ``crop_cache.crop_source``.
        """
        source = _source(entries, size, flags, num_channels)
        return cls(entries, size, flags.data_dir, flags.on_bad_image, num_channels, source)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict[str, Any] | None:  # type: ignore[override]
        """``high_res`` (C, size, size) uint8, ``y`` and ``name``; or None for a skipped image."""
        entry = self._entries[index]
        try:
            crop = self._source.read(index)
        except BadImageError as error:
            if self._on_bad_image == "error":
                raise
            print(f"warning: skipped {entry.name}: {error}")
            return None
        return {"high_res": _to_chw(crop, self._num_channels), "y": entry.y, "name": entry.name}


def warn_of_replaced(batch: dict[str, Any], log: Callable[[str], None]) -> None:
    """Logs which damaged images of a batch were replaced, and forgets them."""
    for names in filter(None, batch.pop("bad")):
        log(f"warning: damaged images replaced by others: {names}")
