"""The flag of measured pairs; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.flags.groups import NATIVE, CropFlags
from utils.script_util import flag, require_at_least


@dataclass(frozen=True)
class PairsFlags:
    """Where the measured inputs are."""

    pairs_dir: str = flag(
        "",
        "folder of measured inputs X, which have the names of the true images in --data_dir (any "
        "ending) and their size, or that over a whole factor (docs/restoration.md)",
    )


def require_native(pairs_dir: str, crop: str) -> None:
    """Refuse a `--pairs_dir` where crops would be scaled; a ValueError."""
    if pairs_dir and crop != NATIVE:
        raise ValueError(
            f"--pairs_dir {pairs_dir} with --crop {crop}: measured pixels are cut and never "
            f"scaled; give --crop {NATIVE}"
        )


@dataclass(frozen=True)
class PairedCropFlags(PairsFlags, CropFlags):
    """How images are cut, and their measured inputs at the same place."""

    pairs_in_channels: int = flag(
        0,
        "channels of a measured input; 0: --in_channels where its files are like the true ones, "
        "else their own",
    )
    pairs_value_range: str = flag(
        "",
        "lowest and highest value of measured inputs; left out: --value_range where their files "
        "are like the true ones, else those of their integers",
    )

    def __post_init__(self) -> None:
        """Refuse what would scale measured pixels, or keep crops of one side only."""
        super().__post_init__()
        require_at_least(self, 0, pairs_in_channels=1)
        for name in ("pairs_in_channels", "pairs_value_range"):
            if getattr(self, name) and not self.pairs_dir:
                raise ValueError(f"--{name} {getattr(self, name)} is of --pairs_dir: give both")
        require_native(self.pairs_dir, self.crop)
        if self.pairs_dir and self.cache_dir:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps no measured inputs; leave it out beside "
                f"--pairs_dir {self.pairs_dir}"
            )
