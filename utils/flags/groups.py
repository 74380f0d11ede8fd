"""Flags that scripts share, each declared once. No torch: parsers read them.

A script's own dataclass stands on the groups that it needs. It may give one of their flags another
default, as in `log_dir: str = "logs/x"` (`script_util.flags_of`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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
    kernels: str = flag(
        "auto",
        "3x3 convolutions in fp32 on a CPU: direct sums, or Winograd's filtering where layers are "
        "wide; auto: by the CPU's instructions, or as the run or the samples began",
        ("auto", "direct", "winograd"),
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
    def asked_precision(self) -> Precision:
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
class FrozenPrecision:
    """In which numbers a network computes that is not trained, whatever its training had."""

    precision: str = flag(
        "",
        "of the convolutions, in the place of the two flags that a training has; auto: bf16 where "
        "the device has its arithmetic, else fp32; left out: as those flags say",
        ("auto", *map(str, Precision)),
    )


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
RESIZED, NATIVE = "resized", "native"
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
class ScaleFlags:
    """At which scale images are cut."""

    crop: str = flag(
        RESIZED,
        "resized: the short side is first scaled to the crop's; native: patches at the image's own "
        "resolution, at random places in training, else the centre",
        (RESIZED, NATIVE),
    )


@dataclass(frozen=True)
class Reading(OrientationFlags, ScaleFlags):
    """How files become crops: results of two readings must never mix."""

    @classmethod
    def of(cls, flags: HasReading) -> Reading:
        """The reading of a script's flags."""
        return cls(crop=flags.crop, apply_orientation=flags.apply_orientation)

    @classmethod
    def parse(cls, record: Mapping[str, object]) -> Reading:
        """What a record says; one of an earlier version says nothing, and is of the defaults."""
        crop = NATIVE if record.get("crop") == NATIVE else RESIZED
        return cls(crop=crop, apply_orientation=bool(record.get("apply_orientation")))

    def record(self) -> dict[str, bool | str]:
        """What is not as by default, for a record in JSON."""
        return {name: value for name, value in vars(self).items() if value not in (False, RESIZED)}

    def __str__(self) -> str:
        """Return the flags."""
        return f"--apply_orientation {self.apply_orientation} --crop {self.crop}"


class HasReading(Protocol):
    """Flags that say how images are read."""

    @property
    def apply_orientation(self) -> bool:
        """See `OrientationFlags`."""
        ...

    @property
    def crop(self) -> str:
        """See `ScaleFlags`."""
        ...


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
class CropFlags(ImageFolder, ReadingFlags, ScaleFlags, DryRun):
    """Where the images are and how they are cut."""

    random_crop: bool = flag(
        False,
        "cut at a random place and scale (80 to 100 % of the short side; training); default: the "
        "centre of the image, its short side first scaled to the crop's (see --crop)",
    )
    random_flip: bool = flag(False, "mirror half of the images (training)")
    random_turn: bool = flag(
        False, "turn the images by 0, 90, 180 or 270 degrees at random (training)"
    )
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
                "--random_crop True; leave one of them out (--random_flip and "
                "--random_turn may stay)"
            )
        if self.cache_dir and self.crop == NATIVE and self.is_training:
            raise ValueError(
                f"--cache_dir {self.cache_dir} keeps patches of the centre and does not go with "
                f"--crop {NATIVE}, which trains on patches at random places; leave one of them out"
            )

    @property
    def is_training(self) -> bool:
        """Whether `--crop native` cuts at random places."""
        return True
