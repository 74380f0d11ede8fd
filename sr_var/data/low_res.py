"""The low-res images that samples are drawn of: crops that are reduced, or files as they are.

Both give the same: image number k of `entries`, or None for one that is damaged and skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.entries import FolderLabels, load_entries
from sr_var.base_dataset import load_test_entries
from sr_var.degrade.view import Sizes, View
from sr_var.flags.base_samples import BaseSampleFlags
from sr_var.flags.scripts import SampleFlags
from sr_var.values import Units
from utils.files.storage import is_folder
from utils.flags.groups import NATIVE, Reading
from utils.images.crops.dataset import TestCrops
from utils.images.crops.measured import require_pairs
from utils.images.crops.native_crops import is_native_only, require_range, scaled_255
from utils.images.crops.patches import crop_recipe
from utils.images.crops.recipes import CropSource
from utils.images.files import (
    ALL_EXTENSIONS,
    IMAGE_EXTENSIONS,
    BadImageError,
    image_facts,
    naming,
    resolve_image_path,
)
from utils.images.folder import class_in_name, scan
from utils.images.listing import Entry
from utils.images.native import read_native
from utils.images.pixels import bytes_to_image
from utils.process.errors import DataError
from utils.sizes import Size
from utils.untrusted.arrays import read_npz

ARRAYS = ("arr_0", "arr_1")
_NUM_SHOWN = 5


class LowRes(NamedTuple):
    """X, (C + extra, h, w), an image in [-1, 1] first, and the label of its class."""

    image: Tensor
    label: int


class LowResImages(Protocol):
    """Low-res images in a fixed order; `path` is of what lists them, `entries` name each.

    `entries` have labels and, where they are known, classes.
    """

    path: str
    entries: Sequence[Entry]

    def read(self, position: int) -> LowRes | None:
        """That image; None if it is damaged and skipped."""


class ReducedCrops:
    """X of crops of high-res images; `sizes` are (large, small) sides, or a view."""

    def __init__(
        self,
        entries: Sequence[Entry],
        flags: SampleFlags,
        sizes: Sizes,
        device: torch.device,
    ) -> None:
        self.path, self.entries = flags.to_sample_images_dict_path, entries
        self._view, self._device = View.of_sizes(sizes), device
        large = self._view.large
        recipe = crop_recipe(flags, large, flags.in_channels)
        names = [entry.name for entry in entries]
        require_pairs(recipe, names)
        self._crops = TestCrops(
            entries,
            large,
            flags.data_dir,
            flags.on_bad_image,
            recipe.shape[2],
            CropSource(names, recipe),
        )

    def read(self, position: int) -> LowRes | None:
        """That image; None if it is damaged and skipped."""
        crop = self._crops[position]
        if crop is None:
            return None
        low_res, _ = self._view.pair(crop.image[None], [crop.name], self._device)
        return LowRes(low_res[0], crop.label)


class BaseSamples:
    """Low-res images as they are: samples of another model, or images of a folder.

    Args:
        path: an .npz of `arr_0`, (N, h, w, C), and, for a network with classes, `arr_1`, labels
            (N,); or a folder of images.
        units: what X is: `arr_0` is uint8 of 8-bit pictures, else in these units.
        sample: how images are read, and what becomes of damaged ones.
        small_size: (h, w).
        class_names: of the network, by label, "" where unknown; None: it has no classes.

    Raises:
        DataError: the file is damaged or of another form, an image of another size, or no label
            is known to a network with classes.
    """

    def __init__(
        self,
        path: str,
        units: Units,
        sample: SampleFlags,
        small_size: Size,
        class_names: Sequence[str] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        self.path = path
        self._where, self._size, self._device = f"--base_samples {path}", small_size, device
        self._units, self._on_bad_image = units, sample.on_bad_image
        reading = Reading(apply_orientation=sample.apply_orientation, crop=NATIVE)
        # whole images: none is of another size
        self._recipe = units.recipe(path, small_size, reading)
        self._array: NDArray[Any] | None = None
        if is_folder(path):
            self.entries: Sequence[Entry] = self._of_folder(class_names, log)
        elif os.path.exists(path):
            self.entries = self._of_file(class_names)
        else:
            raise DataError(
                f"{self._where} is missing: give an .npz of samples or a folder of pictures"
            )

    def read(self, position: int) -> LowRes | None:
        """That image; None if it is damaged and skipped."""
        entry = self.entries[position]
        if self._array is not None:
            pixels = self._array[position]
            if not self._units.is_8_bit:
                pixels = scaled_255(pixels, self._units.low, self._units.high)
        else:
            try:
                pixels = self._recipe.cut(entry.name).pixels
            except BadImageError as error:
                if self._on_bad_image == "error":
                    raise
                print(f"warning: skipped {entry.name}: {error}")
                return None
        whole = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return LowRes(bytes_to_image(torch.from_numpy(whole).to(self._device)), entry.y)

    def _of_file(self, class_names: Sequence[str] | None) -> list[Entry]:
        arrays = read_npz(self.path, self._where, ARRAYS)
        self._array = self._required(arrays.get("arr_0"))
        labels = self._labels(arrays, has_classes=class_names is not None)
        names = dict(enumerate(class_names or ()))
        strange = sorted(
            {label for label in labels if any(names.values()) and not names.get(label)}
        )
        if strange:
            raise DataError(
                f"{self._where}: the network was not trained on the classes of the labels "
                f"{', '.join(map(str, strange[:_NUM_SHOWN]))} (arr_1); draw base samples of others"
            )
        return [
            Entry(f"{index:06d}", label, names.get(label, "")) for index, label in enumerate(labels)
        ]

    def _required(self, array: NDArray[Any] | None) -> NDArray[Any]:
        """The array of a file, if it is one of images of the units."""
        units, (height, width) = self._units, self._size
        kinds = "uint8" if units.is_8_bit else "uint8, uint16 or floats"
        wanted = f"{kinds} (N, {height}, {width}, {units.num_channels})"
        if array is None:
            raise DataError(f"{self._where} holds no arr_0; low-res images are {wanted}")
        is_float = array.dtype.kind == "f"
        fits = array.dtype == np.uint8 or (
            not units.is_8_bit and (is_float or array.dtype == np.uint16)
        )
        if not fits or array.shape[1:] != (*self._size, units.num_channels):
            raise DataError(
                f"{self._where}: arr_0 is {array.dtype} {array.shape}, the network takes {wanted}; "
                "see --small_size and --in_channels, or draw base samples of that size"
            )
        if not len(array):
            raise DataError(f"{self._where} holds no image; draw some")
        if units.is_8_bit:
            return array
        if is_float and not np.isfinite(array).all():
            raise DataError(f"{self._where}: arr_0 has NaN or infinite values; fill them")
        type_range = None if is_float else (0.0, float(np.iinfo(array.dtype).max))
        with naming(self._where, "Convert the array to that unit"):
            require_range(array, type_range, units.low, units.high, units.whose)
        return array

    def _labels(self, arrays: dict[str, NDArray[Any]], *, has_classes: bool) -> list[int]:
        labels, count = arrays.get("arr_1"), len(arrays["arr_0"])
        if not has_classes:
            return [0] * count
        if labels is None:
            raise DataError(
                f"{self._where} holds no labels (arr_1), and the network needs the class of each "
                "image; draw base samples by a network with classes, or use --class_cond False"
            )
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{self._where}: arr_1 is {labels.dtype} {labels.shape}; labels are whole numbers, "
                f"({count},)"
            )
        return [int(label) for label in labels]

    def _of_folder(
        self, class_names: Sequence[str] | None, log: Callable[[str], None]
    ) -> Sequence[Entry]:
        endings = IMAGE_EXTENSIONS if self._units.is_8_bit else ALL_EXTENSIONS
        names = scan(
            self.path, log, "--base_samples", on_bad_image=self._on_bad_image, endings=endings
        )
        wrong = []
        for name in names:
            try:
                size = self._size_of(name)
            except BadImageError:
                continue  # whoever reads it tells what is wrong
            if size != (self._size.width, self._size.height):
                wrong.append(f"{name} {size[0]}×{size[1]}")
        if wrong:
            shown = ", ".join(wrong[:_NUM_SHOWN]) + (", …" if len(wrong) > _NUM_SHOWN else "")
            raise DataError(
                f"{self._where}: {len(wrong)} of {len(names)} pictures are not of --small_size "
                f"{self._size} ({shown}); they are taken as they are: cut them to that size, or "
                "give high-res ones as --data_dir"
            )
        if class_names is None:
            return [Entry(name, 0) for name in names]
        labels = {name: class_in_name(name) for name in names}
        if all(label.isdecimal() for label in labels.values()):  # pictures of image_sample.py
            known = dict(enumerate(class_names))
            return [Entry(name, int(y), known.get(int(y), "")) for name, y in labels.items()]
        folder = FolderLabels(self.path, self._on_bad_image)
        return load_entries(folder, len(class_names), log, class_names if any(class_names) else ())

    def _size_of(self, name: str) -> tuple[int, int]:
        """(width, height) of a file as it is read."""
        path, is_turned = resolve_image_path(self.path, name), self._recipe.apply_orientation
        if is_native_only(path):
            num_channels = self._units.num_channels
            image = read_native(path, apply_orientation=is_turned, num_channels=num_channels)
            return image.facts.size
        return image_facts(path, apply_orientation=is_turned).size


def load_low_res(
    flags: BaseSampleFlags,
    sample: SampleFlags,
    sizes: Sizes,
    class_names: Sequence[str] | None,
    device: torch.device,
    log: Callable[[str], None],
) -> LowResImages:
    """The images that the flags name; `sizes` are (large, small) sides, or a view.

    `class_names` are the network's, by label, "" where unknown; None: it has no classes.
    """
    view = View.of_sizes(sizes)
    if not flags.base_samples:
        return ReducedCrops(load_test_entries(sample, view.sizes, log), sample, view, device)
    if view.degradation is not None and view.degradation.num_extra:
        raise DataError(
            f"--base_samples {flags.base_samples} are images alone, and the network sees more "
            f"(--degradation {view.degradation.text}): give high-res images as --data_dir"
        )
    kind = None if view.degradation is None else view.degradation.measured
    units = Units.of(sample) if kind is None else Units.of_measured(kind)
    return BaseSamples(flags.base_samples, units, sample, view.sizes[1], class_names, device, log)
