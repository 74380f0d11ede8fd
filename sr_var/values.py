"""What the numbers of a data set's images are: their range, and the way from and to it.

Inside, images are float in [-1, 1] or in 255ths of the range, so that grey levels of 8 bits are a
special case. Arrays on the disk are in units of the images.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_var.base_dataset import existing_path, load_entries
from sr_var.flags.scripts import ValueFlags
from utils.files.atomic import JsonObject
from utils.files.records import shown
from utils.flags.groups import Reading
from utils.images.crops.measured import PAIRS, Kind
from utils.images.crops.native_crops import is_native_only
from utils.images.crops.patches import recipe_of
from utils.images.crops.recipes import CenterCrop
from utils.images.files import DEPTH, image_facts, resolve_image_path
from utils.images.native import read_native
from utils.metrics import WHITE
from utils.process.errors import CheckpointError, DataError
from utils.script_util import from_args, with_values
from utils.sizes import SizeLike

_NUM_LOOKED_AT = 17
_OF_8_BITS, _OF_16_BITS = "0,255", "0,65535"


@dataclass(frozen=True)
class Units:
    """The unit of a data set's images: `low` is 0 and `high` 255 inside.

    `is_8_bit`: whether they are read as 8-bit grey levels or RGB, whatever their files hold;
    `whose`: what the names of flags begin with that say so.
    """

    low: float = 0.0
    high: float = float(WHITE)
    num_channels: int = 3
    is_8_bit: bool = True
    whose: str = field(default="", compare=False)

    @classmethod
    def of(cls, flags: ValueFlags) -> Units:
        """Those that the flags tell of; grey levels of 8 bits without a range."""
        values = flags.values_range
        low, high = values or (0.0, float(WHITE))
        return cls(low, high, flags.in_channels, values is None)

    @classmethod
    def of_measured(cls, kind: Kind) -> Units:
        """Those of measured images that are not like the true ones."""
        low, high = kind.values_range or (0.0, float(WHITE))
        return cls(low, high, kind.num_channels, kind.values_range is None, PAIRS)

    @classmethod
    def of_record(cls, record: object, path: str) -> Units:
        """Those that results were written in, by `record`; DataError, naming the file, if damaged.

        Results of earlier versions say nothing of it: they are grey levels of RGB.
        """
        if record is None:
            return cls()
        if isinstance(record, dict):
            num_channels, values = record.get("in_channels"), record.get("value_range")
            if isinstance(num_channels, int) and num_channels > 0 and isinstance(values, str):
                with contextlib.suppress(ValueError):
                    return cls.of(ValueFlags(num_channels, values))
        raise DataError(f"{path} tells of the values {shown(record)}; delete it and test again")

    def record(self) -> JsonObject:
        """What to write beside results for `of_record`; nothing for grey levels of RGB."""
        if self == Units():
            return {}
        values = "" if self.is_8_bit else f"{self.low!r},{self.high!r}"
        return {"values": {"in_channels": self.num_channels, "value_range": values}}

    def recipe(self, data_dir: str, size: SizeLike, reading: Reading) -> CenterCrop:
        """How the centre crops of these images are made."""
        values = None if self.is_8_bit else (self.low, self.high)
        made = recipe_of(data_dir, size, self.num_channels, reading, values)
        return replace(made, whose=self.whose)

    @property
    def half(self) -> float:
        """Half of the range: what a step of 1 of a network is in units of the images."""
        return (self.high - self.low) / 2

    @property
    def scale(self) -> float:
        """Units of the images in a 255th of the range."""
        return (self.high - self.low) / WHITE

    @property
    def name(self) -> str:
        """What a number in the images' own unit is called."""
        if self.is_grey_levels:
            return "grey levels"
        return f"units of the images ({self.low:g} to {self.high:g})"

    @property
    def is_grey_levels(self) -> bool:
        """Whether the two units are one, so that numbers stay to the last bit."""
        return (self.low, self.high) == (0.0, float(WHITE))

    def from_255(self, image_255: NDArray[Any]) -> NDArray[Any]:
        """An image in 255ths of the range to its own unit, same dtype."""
        if self.is_grey_levels:
            return image_255
        return (image_255 * self.scale + self.low).astype(image_255.dtype)

    def to_255(self, image: NDArray[Any]) -> NDArray[Any]:
        """And back."""
        return image if self.is_grey_levels else (image - self.low) / self.scale

    def spread_from_255(self, spread_255: NDArray[Any], power: int) -> NDArray[Any]:
        """A std (`power` 1) or a variance (2) in 255ths to its own unit, same dtype."""
        if self.is_grey_levels:
            return spread_255
        return (spread_255 * self.scale**power).astype(spread_255.dtype)

    def __str__(self) -> str:
        """As a reader of metrics wants to know it."""
        if self.is_grey_levels:
            return "Grey levels run from 0 to 255."
        return (
            f"Grey levels are 255ths of the range from {self.low:g} to {self.high:g} of the "
            f"images; one is {self.scale:g} of their units."
        )


GREY_LEVELS = Units()


def as_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """What is shown of an image (H, W, C) as a picture (H, W, 3): the mean of other channels.

    Of whole numbers the mean is rounded.
    """
    if image.shape[2] == 3:
        return image
    mean = image.mean(axis=2, keepdims=True)
    if image.dtype.kind in "ui":
        mean = np.rint(mean)
    return np.repeat(mean.astype(image.dtype), 3, axis=2)


def settle_values(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a new training with as many channels out as in, and a range of values.

    A range that was left out is that of the integers in the images, of which a few are looked at:
    none for 8-bit pictures, which are read as grey levels or RGB.

    Raises:
        ValueError: floats, and no range is given; or a range that is none.
    """
    given = args.given_flags
    if hasattr(args, "out_channels") and "in_channels" in given and "out_channels" not in given:
        args = with_values(args, out_channels=args.in_channels)
    if args.value_range:
        _ = from_args(ValueFlags, args).values_range
        return args
    try:
        entries = load_entries(existing_path(args.data_info_dict_path), args.data_dir)
        step = max(1, len(entries) // _NUM_LOOKED_AT)
        names = [entry.name for entry in entries[::step]][:_NUM_LOOKED_AT]
        paths = [resolve_image_path(args.data_dir, name) for name in names]
        value_range = _range_of(paths, args)
    except (DataError, OSError):
        return args  # whoever reads the images tells what is wrong
    return with_values(args, value_range=value_range)


def _range_of(paths: Sequence[str], args: argparse.Namespace) -> str:
    path = paths[0]
    if not is_native_only(path):
        # 16-bit pictures among those of 8 bits are read as these
        if all(not is_native_only(one) and DEPTH in image_facts(one).changes for one in paths):
            return _OF_16_BITS
        return "" if args.in_channels in (1, 3) else _OF_8_BITS
    found = read_native(path, num_channels=args.in_channels).type_range
    if found is None:
        raise ValueError(
            f"--value_range is needed: {path} holds floats, whose range no file tells; give the "
            "lowest and the highest value of the images, as in --value_range 0,1"
        )
    return f"{found[0]:g},{found[1]:.0f}"


def require_same_values(
    path: str, made: ValueFlags, wanted: ValueFlags, remedy: str = "name a network of these images"
) -> None:
    """Refuse (CheckpointError) a network of other channels or another range of values."""
    if Units.of(made) != Units.of(wanted):
        raise CheckpointError(
            f"{path} is for {_told(made)}, this run for {_told(wanted)}; {remedy}"
        )


def _told(flags: ValueFlags) -> str:
    found = f"images of {flags.in_channels} channels"
    return found + f" with --value_range {flags.value_range or _OF_8_BITS}"
