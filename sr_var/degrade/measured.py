"""X that was measured beside Y, and is read from a file: `--pairs_dir`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sr_var.degrade.part import Part
from sr_var.flags.degradation import MEASURED
from utils.process.errors import DataError


@dataclass(frozen=True)
class Measured(Part):
    """An image that no function makes of Y; the number is how many times smaller it is."""

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
