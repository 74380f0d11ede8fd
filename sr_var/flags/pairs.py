"""The flag of measured pairs; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.flags.groups import NATIVE, CropFlags
from utils.script_util import flag


@dataclass(frozen=True)
class PairsFlags:
    """Where the measured inputs are."""

    pairs_dir: str = flag(
        "",
        "folder of measured inputs X, which have the names of the true images in --data_dir (any "
        "ending) and their size, or that over a whole factor (docs/restoration.md)",
    )


@dataclass(frozen=True)
class PairedCropFlags(PairsFlags, CropFlags):
    """How images are cut, and their measured inputs at the same place."""

    def __post_init__(self) -> None:
        """Refuse what would scale measured pixels, or keep crops of one side only."""
        super().__post_init__()
        if self.pairs_dir and self.crop != NATIVE:
            raise ValueError(
                f"--pairs_dir {self.pairs_dir} with --crop {self.crop}: measured pixels are cut "
                f"and never scaled; give --crop {NATIVE}"
            )
        if self.pairs_dir and self.cache_dir:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps no measured inputs; leave it out beside "
                f"--pairs_dir {self.pairs_dir}"
            )
