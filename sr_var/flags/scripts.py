"""The flags of the super-resolution scripts, one dataclass a group; no torch: `--help` is quick.

Training flags that every task has are in `utils.flags.training`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ddpm.flags import ClassFlags, DenoiserFlags, DiffusionTrainFlags, SamplerFlags, UNetFlags
from sr_var.flags.degradation import DegradationFlags, TestDegradationFlags
from sr_var.flags.mean_module import MeanModuleFlags
from sr_var.flags.network import SUBPIXEL, UNET, NetworkFlags
from sr_var.flags.pairs import PairedCropFlags, PairsFlags, require_native
from sr_var.flags.validation import NetTrainFlags
from utils.flags.groups import (
    AUTO,
    ENLARGE,
    FOLDER,
    NAME,
    NONE,
    Batch,
    Compute,
    FrozenPrecision,
    ImageFolder,
    Logged,
    OnBadImage,
    OrientationFlags,
    ReadingFlags,
    ScaleFlags,
    ScriptFlags,
    Seeded,
    Strict,
    Threads,
)
from utils.script_util import FlagValues, flag, require_at_least
from utils.sizes import Size, require_sizes

DATA_DIR = "../datasets/imagenet/train"
TRAIN_INFO = "data/sr_imagenet/train_data_info.pkl"
TEST_INFO = "data/sr_imagenet/to_sample_data_info.pkl"
MEAN_ARGS = "logs/sr_mean/64_256/mean_model_args.pkl"
# what is on one side of a split as a whole
BY_FILE, BY_FOLDER, BY_LIST = "file", "folder", "list"
NET_LOG = "folder of logs.txt, TensorBoard events, args.json and the model flags"


@dataclass(frozen=True)
class Sizes:
    """How large the images are, and how small."""

    large_size: int | str = flag(
        256,
        "side of the high-res image, pixels, or HEIGHTxWIDTH; larger photographs are reduced to it "
        "before they are cut (see --crop)",
        is_size=True,
    )
    small_size: int | str = flag(64, "of the low-res image, likewise", is_size=True)

    @property
    def sizes(self) -> tuple[Size, Size]:
        """Large and small."""
        return Size.of(self.large_size), Size.of(self.small_size)


@dataclass(frozen=True)
class ValueFlags:
    """What the numbers of an image are."""

    in_channels: int = flag(3, "channels of an image: 3, 1 for grey levels, or those of its file")
    value_range: str = flag(
        "",
        "lowest and highest value of the images, as 0,65535: -1 and 1 to the networks; left out: "
        "those of their integers",
    )

    @property
    def values_range(self) -> tuple[float, float] | None:
        """The parsed `value_range`; None for 8-bit grey levels, whatever the files hold.

        Raises:
            ValueError: it is not two numbers, the lower one first.
        """
        if not self.value_range:
            return None
        try:
            low, high = (float(part) for part in self.value_range.split(","))
        except ValueError:
            low = high = math.nan
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(
                f"--value_range {self.value_range!r}: give two numbers, the lower one first, as in "
                "0,65535"
            )
        return low, high


@dataclass(frozen=True)
class MeanModelFlags(NetworkFlags, ClassFlags, ValueFlags, DegradationFlags, Sizes, UNetFlags):
    """The network that estimates the conditional mean."""

    model_channels: int = flag(128, "base width of the network")
    out_channels: int = flag(3, "channels of the output")
    conv_resample: bool = flag(True, "learned convolutions where the resolution changes")
    dims: int = flag(2, "spatial dimensions of the data")
    predict_residual: bool = flag(
        False,
        "add the output to the upsampled low-res image: for every new unet, which then learns many "
        "times faster (a subpixel net always does)",
    )
    consistent: bool = flag(
        False, "project the mean so that its block means are the low-res image (docs/theory.md)"
    )


@dataclass(frozen=True)
class VarModelFlags(MeanModelFlags):
    """The network that estimates the conditional variance."""

    predict_residual: bool = flag(False, "not for variance nets: must stay False")
    consistent: bool = flag(False, "not for variance nets: must stay False")
    last_layer_type: str = flag(
        "none", "what keeps the variance positive", ("none", "exp", "sigmoid", "softplus")
    )
    functional: str = flag(
        "",
        "linear map of the image whose variance is estimated in place of that of pixels: block:4 "
        "for means of 4×4 pixels, block:4+2,2 for blocks moved by 2,2, filter:-1,1 for a kernel, "
        "filter:K.npy for that of a file, …@2 for every 2nd place; pc:2: the 2 leading principal "
        "components of each low-res pixel's block (subpixel nets)",
    )


@dataclass(frozen=True)
class SRDiffusionModelFlags(ValueFlags, DegradationFlags, Sizes, DenoiserFlags):
    """The denoising network of the diffusion model: OpenAI's upsampler, or a smaller one."""

    network: str = flag(
        UNET,
        "unet; subpixel: residual blocks at the low-res side (num_channels, num_res_blocks), with "
        "predict_xstart True",
        (UNET, SUBPIXEL),
    )
    predict_residual: bool = flag(
        False,
        "add the upsampled low-res image to the output (for predict_xstart; a subpixel net always "
        "does)",
    )

    @property
    def network_class(self) -> str:
        """Of what is built, as checkpoints name it."""
        return "SubpixelDenoiser" if self.network == SUBPIXEL else "SuperResModel"


@dataclass(frozen=True)
class ListedImages(ImageFolder):
    """Where the images are, and which of them count."""

    data_dir: str = DATA_DIR
    data_info_dict_path: str = flag(TEST_INFO, "pickle of class -> label and file names")


@dataclass(frozen=True)
class DataFlags(ValueFlags, ListedImages, PairedCropFlags):
    """Where the images are and how they are cut."""

    data_info_dict_path: str = TRAIN_INFO


@dataclass(frozen=True)
class TestDataFlags(DataFlags):
    """Where the test images are."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    data_info_dict_path: str = TEST_INFO
    random_crop: bool = flag(False, "not for tests: must stay False")
    random_flip: bool = flag(False, "not for tests: must stay False")
    random_turn: bool = flag(False, "not for tests: must stay False")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_crop or self.random_flip or self.random_turn:
            raise ValueError(
                "--random_crop, --random_flip and --random_turn are for training; leave them out"
            )

    @property
    def is_training(self) -> bool:
        """Of tests the patches lie at the centre."""
        return False


@dataclass(frozen=True)
class NoisyTrainFlags(NetTrainFlags):
    """Training of a net whose labels may have noise."""

    net: ClassVar[str] = ""

    label_noise: float = flag(
        0.0,
        "std of normal noise that is added to the high-res images as labels, grey levels: the mean "
        "stays, the variance rises by its square; 0: none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_noise < math.inf:
            raise ValueError(
                f"--label_noise {self.label_noise} must be 0 or a finite number of grey levels"
            )

    def common(self) -> FlagValues:
        """As of every training, and what the loops of these nets have beside it."""
        return {**super().common(), "label_noise": self.label_noise}


@dataclass(frozen=True)
class MeanTrainFlags(NoisyTrainFlags):
    """Training of the mean net."""

    net: ClassVar[str] = "mean"

    log_dir: str = flag("logs/sr_mean/64_256", NET_LOG)
    model_save_dir: str = "checkpoints/sr_mean/64_256"


@dataclass(frozen=True)
class VarTrainFlags(NoisyTrainFlags):
    """Training of the variance net."""

    net: ClassVar[str] = "variance"

    log_dir: str = flag("logs/sr_var/64_256", NET_LOG)
    model_save_dir: str = "checkpoints/sr_var/64_256"


@dataclass(frozen=True)
class DDPMTrainFlags(DiffusionTrainFlags):
    """Training of the diffusion model."""

    log_dir: str = "logs/ddpm_sr/train"
    model_save_dir: str = "checkpoints/ddpm_sr/train"


@dataclass(frozen=True)
class MeanNetFlags(MeanModuleFlags):
    """The frozen mean net that the variance task stands on."""

    mean_model_path: str = flag(
        "", "checkpoint of the mean net; with --cross_fit {fold} stands for 0 to K - 1 in it"
    )
    mean_model_args_path: str = flag(MEAN_ARGS, "file of the mean net's model flags, likewise")


@dataclass(frozen=True)
class TestFlags(TestDegradationFlags, Batch, ScriptFlags, Compute, FrozenPrecision, Strict):
    """What to test and where to write."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    model_path: str = flag("", "checkpoint to test, modelNNNNNN.pt")
    log_dir: str = flag("logs/sr_mean/64_256", "folder of the training's log (its model flags)")
    output_dir: str = flag(
        "outputs/sr_var/64_256", "folder of the results, one of its own an image"
    )

    def __post_init__(self) -> None:
        require_at_least(self, batch_size=1)


@dataclass(frozen=True)
class VarTestFlags(TestFlags):
    """The same for a variance."""

    log_dir: str = "logs/sr_var/64_256"
    var_npy: bool = flag(False, "write the variance as .npy beside the pickle, too")


@dataclass(frozen=True)
class SampleFlags(
    TestDegradationFlags,
    ValueFlags,
    SamplerFlags,
    PairsFlags,
    ImageFolder,
    ReadingFlags,
    ScaleFlags,
):
    """How many samples of which images, and where to."""

    data_dir: str = DATA_DIR
    to_sample_images_dict_path: str = flag(TEST_INFO, "pickle of class -> label and file names")
    model_path: str = "checkpoints/ddpm_sr/64_256_upsampler.pt"
    log_dir: str = "logs/ddpm_sr/64_256_step_250"
    output_dir: str = flag(
        "outputs/ddpm_sr/64_256_step_250", "folder of samples and moments, one of its own an image"
    )
    num_samples_per_image: int = flag(100, "samples per image")

    def __post_init__(self) -> None:
        require_native(self.pairs_dir, self.crop)
        require_at_least(self, num_samples_per_image=1)
        require_at_least(self, -1, batch_size=1)
        super().__post_init__()


@dataclass(frozen=True)
class DataInfoFlags(PairsFlags, ImageFolder, ReadingFlags, ScaleFlags, Threads, ScriptFlags):
    """Which images there are and which are for testing."""

    data_dir: str = DATA_DIR
    output_dir: str = flag("data/sr_imagenet", "folder of the three info dicts")
    overwrite: bool = flag(False, "replace the info dicts of another split")
    log_dir: str = "logs/sr_data_info"
    num_test_per_class: int = flag(2, "test images per class, without --test_share")
    test_share: float = flag(
        0.0,
        "share of the images to test on, drawn by name: 0.2 is a fifth; 1: all of them, as of a "
        "folder that is for testing only; 0: --num_test_per_class",
    )
    split_by: str = flag(
        BY_FILE,
        "what --test_share draws: file by file, or whole folders (images of one scene or patient "
        "stay together); list: test on the images that --test_list names",
        (BY_FILE, BY_FOLDER, BY_LIST),
    )
    test_list: str = flag(
        "", "text file with the name of a test image a line (--split_by list)", is_path=True
    )
    test_folder: str = flag("", "take all images under this folder of data_dir as test images")
    check_images: bool = flag(True, "decode every image")
    large_size: int | str = flag(
        256, "of the high-res images to come: smaller images are counted", is_size=True
    )
    label_from: str = flag(
        AUTO,
        "class of an image: its folder, or its file name up to the first underscore; none: there "
        "are no classes; auto: the folder; in a flat folder the name, or none if a name shows none",
        (AUTO, NAME, FOLDER, NONE),
    )
    dry_run: bool = flag(False, "count and check, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_test_per_class=0)
        require_sizes(self, "large_size")
        self._check_split()
        if self.small_images != ENLARGE and not self.check_images:
            raise ValueError(
                f"--small_images {self.small_images} needs images to be opened; leave "
                "--check_images False out"
            )

    def _check_split(self) -> None:
        if not 0 <= self.test_share <= 1:
            raise ValueError(f"--test_share {self.test_share} must be from 0 to 1, as 0.2")
        if self.split_by == BY_FOLDER and not self.test_share:
            raise ValueError(f"--split_by {BY_FOLDER} needs a --test_share, as 0.2")
        if (self.split_by == BY_LIST) != bool(self.test_list):
            raise ValueError(
                f"--split_by {self.split_by} with --test_list {self.test_list!r}: --split_by "
                f"{BY_LIST} and --test_list FILE belong together"
            )
        ways = {"test_folder": self.test_folder, "test_list": self.test_list}
        given = [f"--{name} {value}" for name, value in ways.items() if value]
        given += [f"--test_share {self.test_share}"] if self.test_share else []
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say both what to test on; give one of them")


@dataclass(frozen=True)
class PlanFlags(Logged, Seeded):
    """How large the experiment is to be."""

    batch_size: int = flag(
        1, "images a network evaluation in the measurement; auto: found by timing", is_auto=True
    )
    num_images: int = flag(2000, "images to draw samples for and to test on")
    num_samples: str = flag("20,100", "samples an image, comma separated")
    sampling_steps: str = flag("25,250", "steps a sample, comma separated")
    num_devices: str = flag("1,8", "devices like this one, comma separated")
    net_kind: str = flag(UNET, "kind of the mean and the variance net", (UNET, SUBPIXEL))
    net_channels: int = flag(128, "base width of the mean and the variance net")
    net_res_blocks: int = flag(2, "their residual blocks, of a unet per resolution")
    net_channel_mult: str = flag("1,1,2,2,4", "width of each resolution of a unet")
    train_batch_size: int = flag(64, "images a step of their training, over all devices")
    mean_steps: int = flag(90000, "training steps of the mean net")
    var_steps: int = flag(50000, "training steps of the variance net")
    num_rounds: int = flag(3, "timed passes of each network; their median counts")
    margin: float = flag(
        0.05, "of the verification: how many images its verdict takes; 0: that is not said"
    )
    pilot: str = flag(
        "", "results.json of an earlier verification, whose scatter tells it better", is_path=True
    )
    log_dir: str = flag("logs/sr_plan", "folder of logs.txt, args.json and plan.json")

    def __post_init__(self) -> None:
        counts = {"num_images": 1, "train_batch_size": 1, "num_rounds": 1, "net_channels": 1}
        require_at_least(self, **counts, mean_steps=0, var_steps=0)
        require_at_least(self, -1, batch_size=1)
        if not 0 <= self.margin < 1:
            raise ValueError(f"--margin {self.margin} must be at least 0 and below 1, as 0.05")
        for name, least in (("num_samples", 2), ("sampling_steps", 1), ("num_devices", 1)):
            if min(self.counts(name)) < least:
                raise ValueError(f"--{name} {getattr(self, name)} must be at least {least}")

    def counts(self, name: str) -> tuple[int, ...]:
        """A parsed list of counts."""
        text = getattr(self, name)
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"--{name} {text!r} must be whole numbers, as in 25,250") from None


@dataclass(frozen=True)
class OracleDataFlags(ImageFolder, OrientationFlags, OnBadImage, Threads, ScriptFlags):
    """Which photographs become low-res images, and how much is drawn from the oracle's law."""

    data_dir: str = flag("data/demo", "folder of photographs, flat or in class folders")
    test_folder: str = flag(
        "test", "folder of data_dir whose photographs are for testing; empty: every tenth is"
    )
    train_folder: str = flag(
        "", "folder of data_dir whose photographs alone are for training; empty: all that are left"
    )
    output_dir: str = flag("data/oracle", "folder of the images (images/) and of the info dicts")
    sample_dir: str = flag("outputs/oracle/default", "folder of exact samples and exact moments")
    log_dir: str = "logs/oracle_data"
    large_size: int = flag(64, "side of the high-res images, pixels")
    small_size: int = flag(16, "side of the low-res images, pixels of a photograph")
    num_train_crops: int = flag(2000, "low-res images to train on, cut at random places")
    num_draws: int = flag(4, "high-res images drawn for each of them")
    num_test_crops: int = flag(32, "low-res images to test on")
    num_calibration_crops: int = flag(
        0, "low-res images to calibrate on, of the photographs for testing, at other places"
    )
    num_samples: int = flag(100, "exact samples of each test image")
    sample_pictures: bool = flag(True, "write the samples as pictures too, not only their moments")
    degradation: str = flag(
        "area",
        "what the nets will see: area, the low-res image; beside it the image with noise of std 25 "
        "(grey levels), 'area & noise:25', or without half of its pixels, 'area & mask:0.5': "
        "images are floats then, and samples and moments are given what is seen",
    )
    num_classes: int = flag(
        0,
        "draw from the class law of docs/oracle.md: each image has one of so many labels, which "
        "the polarity of its edges depends on; 0: the law without labels",
    )
    class_sample_dir: str = flag(
        "",
        "folder of samples and moments given the image's label, too (with num_classes); left out: "
        "sample_dir with _given_class behind its name",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_train_crops=1, num_draws=1, num_test_crops=1, num_samples=2)
        require_at_least(self, num_calibration_crops=0)
        require_at_least(self, 0, num_classes=2)
        if self.class_sample_dir and not self.num_classes:
            raise ValueError(
                f"--class_sample_dir {self.class_sample_dir} is for samples given a label; give "
                "--num_classes 2, or leave it out"
            )
        if self.num_classes and self.given_class_dir.rstrip("/") == self.sample_dir.rstrip("/"):
            raise ValueError(
                f"--class_sample_dir {self.class_sample_dir} is --sample_dir, too; give another one"
            )
        if self.train_folder and self.train_folder.strip("/") == self.test_folder.strip("/"):
            raise ValueError(
                f"--train_folder {self.train_folder} is --test_folder too; name another folder of "
                "--data_dir, so that no photograph is in both sets"
            )
        factor, rest = divmod(self.large_size, max(self.small_size, 1))
        if rest or factor < 2 or self.small_size < 1:
            raise ValueError(
                f"--large_size {self.large_size} must be 2, 3, 4, … times --small_size "
                f"{self.small_size}"
            )

    @property
    def factor(self) -> int:
        """High-res pixels along the side of a low-res one."""
        return self.large_size // self.small_size

    @property
    def given_class_dir(self) -> str:
        """The folder of samples and moments that are given the label, too."""
        return self.class_sample_dir or f"{self.sample_dir.rstrip('/')}_given_class"
