"""The flags of sr_predict.py: which images, which networks, in which parts; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sr_var.flags.mean_module import MeanModuleFlags
from utils.files.storage import with_home
from utils.flags.groups import (
    Batch,
    Compute,
    FrozenPrecision,
    OnBadImage,
    PrecisionFlags,
    ScriptFlags,
)
from utils.script_util import AUTO, flag, require_at_least

# --format
NPY, TIFF = "npy", "tiff"


@dataclass(frozen=True)
class NetPairFlags(MeanModuleFlags, PrecisionFlags, FrozenPrecision, Compute):
    """The two networks, as their trainings left them."""

    mean_model_path: str = flag("", "checkpoint of the mean net, modelNNNNNN.pt")
    var_model_path: str = flag("", "checkpoint of the variance net that was trained on it")
    mean_model_args_path: str = flag(
        "", "file of the mean net's model flags, for a checkpoint without a manifest beside it"
    )
    var_model_args_path: str = flag("", "the same of the variance net")
    compile: str = "off"


@dataclass(frozen=True)
class PredictorFlags(Batch):
    """Tiles, whose pixels are those of the low-res image, and intervals of a `Predictor`."""

    tile: int = flag(
        AUTO,
        "side of a tile, pixels. Of a U-Net: all that it sees at a time; auto: the side that it "
        "was trained on. Of sub-pixel networks: what is computed at a time, with the same result "
        "for any tile; auto: 256",
        is_auto=True,
    )
    overlap: int = flag(
        -1,
        "pixels. Of a U-Net: what neighbouring tiles share, where one fades into the other; -1: a "
        "quarter of the tile. Of sub-pixel networks: what they see around a tile; -1: as far as "
        "an output pixel depends on",
    )
    batch_size: int = flag(1, "tiles of each process per forward pass")
    level: float = flag(0.9, "of the intervals: the share of the law that they hold, 0 to 1")
    calibration: str = flag(
        "",
        "calibration.json of sr_calibrate.py for these networks: intervals that hold its level",
        is_path=True,
    )

    label: str = flag(
        "",
        "class of the images, its label or its name, for networks with class_cond; all images are "
        "of this class",
    )

    def __post_init__(self) -> None:
        require_at_least(self, -1, overlap=0)
        require_at_least(self, batch_size=1)
        if not 0 < self.level < 1:
            raise ValueError(f"--level {self.level} must lie between 0 and 1, as 0.9")


@dataclass(frozen=True)
class PredictFlags(PredictorFlags, OnBadImage, ScriptFlags):
    """What to predict and where to write."""

    input: str = flag(
        "", "an image or a folder of them; each is the low-res image itself", is_path=True
    )
    output_dir: str = flag("outputs/sr_predict", "folder of pictures, arrays and predict.csv")
    log_dir: str = "logs/sr_predict"
    std_threshold: float = flag(
        -1.0,
        "std in the unit of the images; the share of pixels above it is told of each; -1: 20 of "
        "255 parts of their range, which is 20 grey levels",
    )
    truth: str = flag(
        "",
        "high-res image, or folder of them under the names of the inputs, to compare with",
        is_path=True,
    )
    mask: str = flag(
        "",
        "for networks that see a mask: a picture (bright: seen, dark: hidden) for all images, or a "
        "folder of them under the names of the inputs; several, comma separated, where there are "
        "several masks in the networks' --degradation. Left out: transparent and NaN pixels are "
        "hidden, or those of the training's mask:FILE",
        is_path=True,
    )
    also: str = flag(
        "",
        "for networks that see images side by side (&): the second one, or folder of them under "
        "the names of the inputs; further ones, comma separated",
        is_path=True,
    )
    degradation_level: str = flag(
        "",
        "for networks with --condition_on_level: the level of the image, as 25 of noise:5-50 for "
        "a std of 25 grey levels; of several ranges all, comma separated",
    )
    save_arrays: bool = flag(
        True,
        "keep mean, std and both ends of the interval as arrays, 16 bytes a channel and pixel of "
        "the result; off: pictures and numbers alone",
    )
    format: str = flag(
        NPY,
        "of the arrays; tiff: float32 TIFF, which lies where a GeoTIFF of the input lies (needs "
        "tifffile)",
        (NPY, TIFF),
    )
    page: int = flag(0, "which image of a TIFF with several ones, from 0 on")
    apply_orientation: bool = flag(
        True, "turn photographs as their EXIF tag says; off: pixels as they are stored"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, -1, std_threshold=0)
        require_at_least(self, page=0)
        if not self.input:
            raise ValueError("--input is empty; name an image or a folder of images")
        _ = self.levels

    @property
    def mask_places(self) -> list[str]:
        """The parts of `mask`."""
        return [with_home(part) for part in self.mask.split(",") if part]

    @property
    def also_places(self) -> list[str]:
        """The parts of `also`."""
        return [with_home(part) for part in self.also.split(",") if part]

    @property
    def levels(self) -> tuple[float, ...]:
        """The numbers of `degradation_level`; a ValueError if it holds something else."""
        try:
            return tuple(float(part) for part in self.degradation_level.split(",") if part)
        except ValueError:
            raise ValueError(
                f"--degradation_level {self.degradation_level} is no number; give one as 25, or "
                "several as 25,0.5"
            ) from None
