"""Flags that scripts share, each declared once. No torch: parsers read them.

A script's own dataclass stands on the groups that it needs. It may give one of their flags another
default, as in `log_dir: str = "logs/x"` (`script_util.flags_of`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from utils.script_util import flag, require_at_least


@dataclass(frozen=True)
class Logged:
    """Where a run is logged."""

    log_dir: str = flag("", "folder of logs.txt, args.json and whatever else the script reports")


@dataclass(frozen=True)
class Seeded:
    """What decides all that is random."""

    seed: int = flag(
        0, "of all that is random; noise is a function of it and of names or places alone"
    )


@dataclass(frozen=True)
class Debug:
    """Whether to say what memory is used."""

    debug_mode: bool = flag(False, "print the memory in use and, of networks, the parameter count")


@dataclass(frozen=True)
class DryRun:
    """Whether to try only."""

    dry_run: bool = flag(
        False, "build all, try the smallest part of the work, print what it costs, write nothing"
    )


@dataclass(frozen=True)
class ScriptFlags(Logged, Seeded, Debug, DryRun):
    """What nearly every script has."""


@dataclass(frozen=True)
class Strict:
    """Whether flags may differ from those of a checkpoint."""

    strict_flags: bool = flag(
        False, "make it an error that a flag differs from what the checkpoint was made with"
    )


@dataclass(frozen=True)
class Compute:
    """How to compute; no effect on results but rounding."""

    compile: str = flag(
        "auto", "torch.compile the network: minutes once; auto: on GPUs", ("auto", "on", "off")
    )


class Precision(enum.Enum):
    """In which numbers the convolutions of a network compute; the value is torch's name of them."""

    FP32 = "float32"
    FP16 = "float16"
    BF16 = "bfloat16"

    def __str__(self) -> str:
        """Return what people call it."""
        return self.name.lower()


@dataclass(frozen=True)
class PrecisionFlags:
    """In which numbers a network computes."""

    use_fp16: bool = flag(False, "compute in fp16 (master parameters stay fp32)", is_free=True)
    use_bf16: bool = flag(False, "compute in bf16 (master parameters stay fp32)", is_free=True)

    @property
    def precision(self) -> Precision:
        """What the flags ask for, whatever a device is fast in (`utils.loops.networks`).

        Raises:
            ValueError: they exclude each other.
        """
        if self.use_fp16 and self.use_bf16:
            raise ValueError("--use_fp16 True and --use_bf16 True exclude each other: set only one")
        if self.use_fp16:
            return Precision.FP16
        return Precision.BF16 if self.use_bf16 else Precision.FP32


@dataclass(frozen=True)
class Batch:
    """How much is computed at a time."""

    batch_size: int = flag(1, "images of each process per step or forward pass")


@dataclass(frozen=True)
class Threads:
    """How many images are worked on at a time."""

    num_threads: int = flag(-1, "images worked on at a time; -1: by the cores")

    def __post_init__(self) -> None:
        require_at_least(self, -1, num_threads=1)


@dataclass(frozen=True)
class ImageFolder:
    """Where the images are."""

    data_dir: str = flag("", "folder of the images, flat or in class folders")


ERROR, SKIP, ENLARGE = "error", "skip", "enlarge"
# where a label is read from
AUTO, NAME, FOLDER, NONE = "auto", "name", "folder", "none"


@dataclass(frozen=True)
class OrientationFlags:
    """Which way up images are read."""

    apply_orientation: bool = flag(
        False, "turn photographs as their EXIF tag says; off: pixels as they are stored"
    )

    @property
    def values_range(self) -> tuple[float, float] | None:
        """What the values of images go from and to; None: 8-bit grey levels, whatever they are."""
        return None


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
        """Refuse crops that are both kept and drawn anew, and less than no processes."""
        require_at_least(self, -1, num_workers=0)
        if self.cache_dir and self.random_crop:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps centre crops and does not go with "
                "--random_crop True; leave one of them out (--random_flip may stay)"
            )
