"""The flags of the super-resolution scripts, one dataclass a group; no torch: ``--help`` is quick.

Training flags that every task has are in ``utils.flags.training``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpm.flags import DenoiserFlags, DiffusionTrainFlags, SamplerFlags
from utils.flags.compute import ComputeFlags
from utils.flags.data import AUTO, ENLARGE, FOLDER, NAME, CropFlags, OrientationFlags, ReadingFlags
from utils.flags.training import TrainFlags
from utils.script_util import flag, require_at_least, require_size_or_auto

DATA_DIR = "../datasets/imagenet/train"
TRAIN_INFO = "data/sr_imagenet/train_data_info.pkl"
TEST_INFO = "data/sr_imagenet/to_sample_data_info.pkl"
MEAN_ARGS = "logs/sr_mean/64_256/mean_model_args.pkl"
LARGE_SIZE = (
    "side of the high-res image, pixels; the short side of larger photographs is reduced to it "
    "before they are cut"
)


@dataclass(frozen=True)
class MeanModelFlags:
    """The network that estimates the conditional mean."""

    large_size: int = flag(256, LARGE_SIZE)
    small_size: int = flag(64, "side of the low-res image, pixels")
    in_channels: int = flag(3, "channels of one input image")
    model_channels: int = flag(128, "base width of the network")
    out_channels: int = flag(3, "channels of the output")
    num_res_blocks: int = flag(2, "residual blocks per resolution")
    attention_resolutions: str = flag("16,8", "sides at which to attend, pixels, comma separated")
    dropout: float = flag(0.0, "dropout probability", is_free=True)
    channel_mult: str = flag("", "width of each resolution in base widths; empty: by large_size")
    conv_resample: bool = flag(True, "learned convolutions where the resolution changes")
    dims: int = flag(2, "spatial dimensions of the data")
    use_checkpoint: bool = flag(
        False, "recompute activations in the backward pass: less memory", is_free=True
    )
    use_fp16: bool = flag(False, "compute in fp16 (master parameters stay fp32)", is_free=True)
    use_bf16: bool = flag(False, "compute in bf16 (master parameters stay fp32)", is_free=True)
    num_heads: int = flag(4, "attention heads")
    num_head_channels: int = flag(-1, "channels per attention head; -1: by num_heads")
    num_heads_upsample: int = flag(-1, "attention heads on the way up; -1: as num_heads")
    resblock_updown: bool = flag(False, "change resolution inside residual blocks")
    use_new_attention_order: bool = flag(False, "split q, k, v before the heads")
    predict_residual: bool = flag(False, "add the output to the upsampled low-res image")


@dataclass(frozen=True)
class VarModelFlags(MeanModelFlags):
    """The network that estimates the conditional variance."""

    predict_residual: bool = flag(False, "not for variance nets: must stay False")
    last_layer_type: str = flag(
        "none", "what keeps the variance positive", ("none", "exp", "sigmoid", "softplus")
    )


@dataclass(frozen=True)
class SRDiffusionModelFlags(DenoiserFlags):
    """The denoising network of the diffusion model, OpenAI's upsampler."""

    large_size: int = flag(256, LARGE_SIZE)
    small_size: int = flag(64, "side of the low-res image, pixels")
    predict_residual: bool = flag(
        False, "add the upsampled low-res image to the output (for predict_xstart)"
    )


@dataclass(frozen=True)
class DataFlags(CropFlags):
    """Where the images are and how they are cut."""

    data_dir: str = flag(DATA_DIR, "folder of the images")
    data_info_dict_path: str = flag(TRAIN_INFO, "pickle of class -> label and file names")


@dataclass(frozen=True)
class TestDataFlags(DataFlags):
    """Where the test images are."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    data_info_dict_path: str = flag(TEST_INFO, "pickle of class -> label and file names")
    random_crop: bool = flag(False, "not for tests: must stay False")
    random_flip: bool = flag(False, "not for tests: must stay False")

    def __post_init__(self) -> None:
        """Refuses augmentation.

        Raises:
            ValueError: if a flag asks for it.
        """
        if self.random_crop or self.random_flip:
            raise ValueError("--random_crop and --random_flip are for training; leave them out")


@dataclass(frozen=True)
class MeanTrainFlags(TrainFlags):
    """Training of the mean net."""

    log_dir: str = flag("logs/sr_mean/64_256", "folder of logs.txt, events, args, model flags")
    model_save_dir: str = flag("checkpoints/sr_mean/64_256", "folder of the checkpoints")


@dataclass(frozen=True)
class VarTrainFlags(TrainFlags):
    """Training of the variance net."""

    log_dir: str = flag("logs/sr_var/64_256", "folder of logs.txt, events, args, model flags")
    model_save_dir: str = flag("checkpoints/sr_var/64_256", "folder of the checkpoints")


@dataclass(frozen=True)
class DDPMTrainFlags(DiffusionTrainFlags):
    """Training of the diffusion model."""

    log_dir: str = flag("logs/ddpm_sr/train", "folder of logs.txt, events and args.json")
    model_save_dir: str = flag("checkpoints/ddpm_sr/train", "folder of the checkpoints")


@dataclass(frozen=True)
class MeanNetFlags:
    """The frozen mean net that the variance task stands on."""

    mean_model_path: str = flag("", "checkpoint of the mean net")
    mean_model_args_path: str = flag(MEAN_ARGS, "model flags of the mean net")


@dataclass(frozen=True)
class TestFlags(ComputeFlags):
    """What to test and where to write."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    model_path: str = flag("", "checkpoint to test, modelNNNNNN.pt")
    log_dir: str = flag("logs/sr_mean/64_256", "folder of the training's log (its model flags)")
    strict_flags: bool = flag(
        False, "make it an error that a flag differs from what the checkpoint was made with"
    )
    output_dir: str = flag("outputs/sr_var/64_256", "folder of the results")
    batch_size: int = flag(1, "images per forward pass")
    seed: int = flag(0, "of anything random")
    debug_mode: bool = flag(False, "print parameter count and GPU memory in use")
    dry_run: bool = flag(False, "run one batch, print what it costs, write nothing")

    def __post_init__(self) -> None:
        """Refuses a batch without images."""
        require_at_least(self, batch_size=1)


@dataclass(frozen=True)
class VarTestFlags(TestFlags):
    """The same for the variance net."""

    log_dir: str = flag("logs/sr_var/64_256", "folder of the training's log (its model flags)")


@dataclass(frozen=True)
class SampleFlags(SamplerFlags, ReadingFlags):
    """How many samples of which images, and where to."""

    data_dir: str = flag(DATA_DIR, "folder of the images")
    to_sample_images_dict_path: str = flag(TEST_INFO, "pickle of class -> label and file names")
    model_path: str = flag("checkpoints/ddpm_sr/64_256_upsampler.pt", "checkpoint of the upsampler")
    log_dir: str = flag("logs/ddpm_sr/64_256_step_250", "folder of logs.txt and args.json")
    output_dir: str = flag("outputs/ddpm_sr/64_256_step_250", "folder of the samples")
    num_samples_per_image: int = flag(100, "samples per image")
    batch_size: int = flag(
        1,
        "samples per network evaluation, of one or several images; auto: found by timing",
        is_auto=True,
    )
    seed: int = flag(0, "of the noise, which is a function of (seed, name, index)")
    debug_mode: bool = flag(False, "print parameter count and GPU memory in use")
    dry_run: bool = flag(False, "one network evaluation, print what it costs, write nothing")

    def __post_init__(self) -> None:
        """Refuses counts that draw nothing, and two samplers at once."""
        require_at_least(self, num_samples_per_image=1)
        require_size_or_auto(self, "batch_size")
        super().__post_init__()


@dataclass(frozen=True)
class VerificationFlags(OrientationFlags):
    """What to compare."""

    data_dir: str = flag(DATA_DIR, "folder of the images")
    data_info_dict_path: str = flag(TEST_INFO, "pickle of class -> label and file names")
    large_size: int = flag(256, "side of the high-res image, pixels")
    ddpm_sr_output_dir: str = flag("outputs/ddpm_sr/64_256_step_250", "folder of the samples")
    num_samples: int = flag(100, "samples per image to use")
    sr_model_output_dir: str = flag(
        "",
        "folder of the nets' results; empty: outputs/sr_var/128_512 for --large_size 512, else "
        "outputs/sr_var/64_256",
    )
    mean_model_step: int = flag(90000, "step of the mean net")
    var_model_step: int = flag(50000, "step of the variance net")
    log_dir: str = flag("logs/sr_compare/64_256", "folder of the figures and pictures")
    num_panels: int = flag(50, "images to draw panels of, and to show in the report; -1: all")
    num_threads: int = flag(-1, "images reduced at a time; -1: by the cores")
    margin: float = flag(
        0.05, "of equivalence, share of the variance: 0.05 is 5 %; 0: intervals without a verdict"
    )
    seed: int = flag(0, "of the bootstrap over images, and of the pixels in the scatter plot")
    debug_mode: bool = flag(False, "print the memory in use")
    dry_run: bool = flag(False, "one image, print what it costs, write nothing")

    def __post_init__(self) -> None:
        """Refuses counts without a variance, or without a meaning."""
        require_at_least(self, large_size=1, num_samples=2, num_panels=-1)
        if not 0 <= self.margin < 1:
            raise ValueError(f"--margin {self.margin} must be at least 0 and below 1, as 0.05")

    @property
    def nets_dir(self) -> str:
        """``--sr_model_output_dir``, or where the documented commands put the nets' results."""
        name = "128_512" if self.large_size == 512 else "64_256"
        return self.sr_model_output_dir or f"outputs/sr_var/{name}"


@dataclass(frozen=True)
class DataInfoFlags(ReadingFlags):
    """Which images there are and which are for testing."""

    data_dir: str = flag(DATA_DIR, "folder of the images, flat or in class folders")
    output_dir: str = flag("data/sr_imagenet", "folder of the three pickles")
    log_dir: str = flag("logs/sr_data_info", "folder of logs.txt and args.json")
    num_test_per_class: int = flag(2, "test images per class")
    test_folder: str = flag("", "take all images under this folder of data_dir as test images")
    check_images: bool = flag(True, "decode every image")
    large_size: int = flag(
        256, "side of the high-res images to come, pixels: smaller images are counted"
    )
    label_from: str = flag(
        AUTO,
        "class of an image: its folder, or its file name up to the first underscore; auto: the "
        "folder, the name in a flat folder",
        (AUTO, NAME, FOLDER),
    )
    seed: int = flag(0, "of the choice of test images")
    overwrite: bool = flag(False, "replace another split of training and test images")
    num_threads: int = flag(-1, "images decoded at a time; -1: by the cores")
    debug_mode: bool = flag(False, "print the memory in use")
    dry_run: bool = flag(False, "count and check, write nothing")

    def __post_init__(self) -> None:
        """Refuses counts and sizes that are none, and a choice that needs images to be opened."""
        require_at_least(self, num_test_per_class=0, large_size=1)
        if self.small_images != ENLARGE and not self.check_images:
            raise ValueError(
                f"--small_images {self.small_images} needs images to be opened; leave "
                "--check_images False out"
            )
