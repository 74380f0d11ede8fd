"""The flags of every task that trains on images from disk; no torch: parsers read them."""

from __future__ import annotations

from dataclasses import dataclass

from utils.flags.groups import DryRun, ImageFolder
from utils.script_util import flag

ERROR, SKIP, ENLARGE = "error", "skip", "enlarge"
# where a label is read from
AUTO, NAME, FOLDER = "auto", "name", "folder"


@dataclass(frozen=True)
class OrientationFlags:
    """Which way up images are read."""

    apply_orientation: bool = flag(
        False, "turn photographs as their EXIF tag says; off: pixels as they are stored"
    )


@dataclass(frozen=True)
class OnBadImage:
    """Whether images that cannot be used end the run."""

    on_bad_image: str = flag(
        ERROR, "what to do with an image that is damaged or has an unfit name", (ERROR, SKIP)
    )


@dataclass(frozen=True)
class ReadingFlags(OnBadImage, OrientationFlags):
    """Which images are read, and how."""

    small_images: str = flag(
        ENLARGE,
        "what to do with an image whose short side has fewer pixels than its crop is to have",
        (ENLARGE, SKIP, ERROR),
    )


@dataclass(frozen=True)
class CropFlags(ImageFolder, ReadingFlags, DryRun):
    """Where the images are and how they are cut."""

    random_crop: bool = flag(
        False,
        "cut at a random place and scale (80 to 100 % of the short side; training); default: the "
        "centre of the image, its short side first scaled to the crop's",
    )
    random_flip: bool = flag(False, "mirror half of the images (training)")
    fast_crop: bool = flag(
        False, "does nothing any more; --cache_dir saves the time", is_retired=True
    )
    cache_dir: str = flag(
        "", "folder that keeps the decoded centre crops from run to run; empty: decode every time"
    )
    num_workers: int = flag(-1, "loader processes; -1: by the cores (none without a GPU)")

    def __post_init__(self) -> None:
        """Refuses crops that are both kept and drawn anew."""
        if self.cache_dir and self.random_crop:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps centre crops and does not go with "
                "--random_crop True; leave one of them out (--random_flip may stay)"
            )
