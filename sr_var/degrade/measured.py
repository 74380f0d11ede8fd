"""X that was measured beside Y, and is read from a file: `--pairs_dir`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sr_var.degrade.part import Part
from sr_var.flags.degradation import MEASURED
from sr_var.flags.scripts import ValueFlags
from utils.images.crops.measured import Kind
from utils.process.errors import DataError

_WORDS = re.compile(rf"{MEASURED}(?::([1-9]\d{{0,3}})(?:@(\S+))?)?")


def words_of(kind: Kind | None) -> str:
    """The words of pairs for `--degradation`: measured, or with channels and range."""
    if kind is None:
        return MEASURED
    values = kind.values_range
    return f"{MEASURED}:{kind.num_channels}" + (f"@{values[0]!r},{values[1]!r}" if values else "")


def kind_of(words: str) -> Kind | None:
    """The kind that the words tell of; None of images like the true ones.

    Raises:
        ValueError: they are no such words.
    """
    found = _WORDS.fullmatch(words)
    if found is None:
        raise ValueError(
            f"--degradation {words!r}: measured pairs are measured, measured:CHANNELS or "
            "measured:CHANNELS@LOW,HIGH"
        )
    if found[1] is None:
        return None
    return Kind(int(found[1]), ValueFlags(int(found[1]), found[2] or "").values_range)


@dataclass(frozen=True)
class Measured(Part):
    """An image that no function makes of Y; the number is how many times smaller it is.

    Attributes:
        kind: of the images, where they have other channels or another range than those of Y.
    """

    kind: Kind | None = None

    name: ClassVar[str] = MEASURED
    # nothing is known of how it was measured
    is_noise_free: ClassVar[bool] = False

    @property
    def factor(self) -> int:
        """How many times smaller X is along a side."""
        return int(self.level.low)

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """Refused with a DataError: X is in a file, or nowhere."""
        raise DataError(
            f"the network sees measured images (--degradation {MEASURED}), which cannot be made of "
            "the true ones: give --pairs_dir, or a script that takes X as it is (sr_predict.py)"
        )
