"""Images on disk → uint8 crops, for training (shuffled, augmented) and for tests (in order).

The crop is all that happens here; what a network sees is made of it on the device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from utils.atomic_file import is_remote
from utils.data_flags import CropFlags
from utils.data_util import ItemKey
from utils.errors import DataError
from utils.image_util import (
    BadImageError,
    center_crop_arr,
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


def listed_entries(data_info_dict_path: str, data_dir: str) -> list[Entry]:
    """All images of an info dict, in the dict's order.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    info = load_info_dict(data_info_dict_path)
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


def _to_chw(crop: np.ndarray[Any, Any], num_channels: int = 3) -> torch.Tensor:
    if num_channels == 1:
        crop = np.array(Image.fromarray(crop).convert("L"))[:, :, None]
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))  # HWC → CHW


class CropDataset(Dataset[dict[str, Any]]):
    """Square uint8 crops by stream key; bad images raise, or are replaced by the next good one.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        flags: where the files are and how to augment.
        seed: of the augmentation, a function of (seed, epoch, index).
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).
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

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        """``high_res`` (C, size, size) uint8, ``y``, ``fold``, ``position``; ``bad``: skipped."""
        position, epoch, index = key
        bad: list[str] = []
        while True:
            entry = self._entries[(index + len(bad)) % len(self._entries)]
            try:
                crop = self._read(entry, item_rng(self._seed, epoch, index))
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

    def _read(self, entry: Entry, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        image = open_image(resolve_image_path(self._flags.data_dir, entry.name))
        if self._flags.random_crop:
            crop = random_crop_arr(image, self._size, rng)
        else:
            crop = center_crop_arr(image, self._size)
        return random_flip(crop, rng) if self._flags.random_flip else crop


class TestCrops(Dataset[dict[str, Any]]):
    """Centre crops in order; a bad image raises, or its item is None.

    Args:
        entries: the images.
        size: side of the crop, pixels.
        data_dir: where the files are.
        on_bad_image: ``error`` or ``skip``.
        num_channels: 3, or 1 for grey levels.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        entries: Sequence[Entry],
        size: int,
        data_dir: str,
        on_bad_image: str = "error",
        num_channels: int = 3,
    ) -> None:
        self._entries, self._size, self._num_channels = entries, size, num_channels
        self._data_dir, self._on_bad_image = data_dir, on_bad_image

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict[str, Any] | None:  # type: ignore[override]
        """``high_res`` (C, size, size) uint8, ``y`` and ``name``; or None for a skipped image."""
        entry = self._entries[index]
        try:
            crop = center_crop_arr(
                open_image(resolve_image_path(self._data_dir, entry.name)), self._size
            )
        except BadImageError as error:
            if self._on_bad_image == "error":
                raise
            print(f"warning: skipped {entry.name}: {error}")
            return None
        return {"high_res": _to_chw(crop, self._num_channels), "y": entry.y, "name": entry.name}
