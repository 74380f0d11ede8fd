"""The flags of the image diffusion scripts, a dataclass a group, and presets of published models.

Flags that the super-resolution's diffusion model has too are in `ddpm.flags`. Defaults are those of
improved-diffusion, whose commands run as they are. Presets state facts from the documents of
improved-diffusion (arXiv 2102.09672) and guided-diffusion (arXiv 2105.05233), whose checkpoints
load as they are. A flag on the command line goes before its value in the preset. No torch.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from ddpm.flags import (
    PICTURE_FORMATS,
    DenoiserFlags,
    DiffusionFlags,
    DiffusionTrainFlags,
    Preset,
    SamplerFlags,
    TrainedFlags,
    apply_preset,
    make_preset,
)
from models.config import POOLS
from utils.files.storage import with_home
from utils.flags.groups import (
    AUTO,
    FOLDER,
    NAME,
    Batch,
    CropFlags,
    ImageFolder,
    Precision,
    PrecisionFlags,
    ReadingFlags,
    ScaleFlags,
    ScriptFlags,
)
from utils.flags.training import TrainFlags, ValidationExtent
from utils.machine.launch import read_launch
from utils.script_util import FlagValues, flag, from_args, require_at_least
from utils.sizes import require_sizes

LOGDIR_VARIABLE = "OPENAI_LOGDIR"


@dataclass(frozen=True)
class ImageShape:
    """What the images of a network are."""

    image_size: int | str = flag(
        64,
        "side of the images, pixels, or HEIGHTxWIDTH; larger ones are reduced, then cut",
        is_size=True,
    )
    in_channels: int = flag(3, "channels of an image: 3, or 1 for grey levels")

    def __post_init__(self) -> None:
        require_sizes(self, "image_size")
        if self.in_channels not in (1, 3):
            raise ValueError(f"--in_channels {self.in_channels} must be 1 (grey) or 3 (colour)")


@dataclass(frozen=True)
class ImageModelFlags(ImageShape, DenoiserFlags):
    """The denoising network."""

    class_dropout: float = flag(
        0.0, "share of labels replaced by 'none' in training, for classifier-free guidance"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_classes=1)
        if not 0.0 <= self.class_dropout < 1.0:
            raise ValueError(f"--class_dropout {self.class_dropout} must be in [0, 1)")
        if self.class_dropout and not self.class_cond:
            raise ValueError(
                f"--class_dropout {self.class_dropout} drops labels; give --class_cond True with it"
            )

    @property
    def null_label(self) -> int | None:
        """The label 'none', behind the classes; None for a network without it."""
        return self.num_classes if self.class_dropout else None


@dataclass(frozen=True)
class ImageDiffusionFlags(DiffusionFlags):
    """The noising process and what the network predicts."""

    rescale_timesteps: bool = True
    rescale_learned_sigmas: bool = True


@dataclass(frozen=True)
class LabelFlags(ImageFolder, ReadingFlags, ScaleFlags):
    """Which images, and where their labels come from."""

    data_info_dict_path: str = flag(
        "", "pickle of class -> label and file names; empty: all images below data_dir"
    )
    label_from: str = flag(
        AUTO,
        "label of an image: its file name up to the first underscore, or its folder; auto: the "
        "name where every one has an underscore, unless all names say the same and folders do not",
        (AUTO, NAME, FOLDER),
    )

    def __post_init__(self) -> None:
        if not self.data_dir:
            raise ValueError("--data_dir is empty; give the folder of the images")


@dataclass(frozen=True)
class ImageDataFlags(LabelFlags, CropFlags):
    """Where the images are and how they are cut."""

    def __post_init__(self) -> None:
        LabelFlags.__post_init__(self)
        CropFlags.__post_init__(self)


@dataclass(frozen=True)
class ImageScriptFlags(ScriptFlags):
    """What every script has; where to log may be left to the environment (`with_folders`)."""

    log_dir: str = flag("", f"folder of the log; empty: ${LOGDIR_VARIABLE}, else a new one in /tmp")


@dataclass(frozen=True)
class SaveFlags(ImageScriptFlags, TrainFlags):
    """What every training has."""

    model_save_dir: str = flag("", "folder of the checkpoints; empty: log_dir")


@dataclass(frozen=True)
class ResultFlags(ImageScriptFlags):
    """What every script with results has."""

    output_dir: str = flag("", "folder of the results; empty: log_dir")


@dataclass(frozen=True)
class ImageTrainFlags(SaveFlags, DiffusionTrainFlags):
    """Training."""

    ema_rate: str = "0.9999"
    sample_interval: int = flag(10000, "steps between grids of samples in TensorBoard; 0: none")
    num_grid_samples: int = flag(16, "images in such a grid")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, sample_interval=0, num_grid_samples=1)


@dataclass(frozen=True)
class ImageSampleFlags(SamplerFlags, ResultFlags):
    """How many samples of what, and where to."""

    num_samples: int = flag(10000, "samples in all")
    batch_size: int = 16
    output_dir: str = flag("", "folder of the samples; empty: log_dir")
    labels: str = flag(
        "",
        "classes to draw in turn, comma separated: labels, or names where the checkpoint keeps "
        "them; each: one sample of each class; empty: at random",
    )
    guidance_scale: float = flag(
        1.0,
        "classifier-free guidance (trained with class_dropout); 1: none, 0: without class, but for "
        "a learned variance",
    )
    png: bool = flag(False, "write each sample as a picture, and a grid of the first ones, too")
    image_format: str = flag(
        PICTURE_FORMATS[0],
        "of these pictures; webp and tif keep every grey level, as png does, jpg does not",
        PICTURE_FORMATS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_samples=1, seed=0)
        require_at_least(self, -1, batch_size=1)

    @property
    def chosen_labels(self) -> tuple[str, ...]:
        """The parts of `labels`: numbers, or names of classes."""
        return tuple(part.strip() for part in self.labels.split(",") if part.strip())


@dataclass(frozen=True)
class NLLFlags(TrainedFlags, Batch, ResultFlags):
    """What to measure."""

    num_samples: int = flag(1000, "images, the first ones of data_dir; -1: all")

    def __post_init__(self) -> None:
        require_at_least(self, batch_size=1, seed=0)
        require_at_least(self, -1, num_samples=1)


Flags = TypeVar("Flags", bound=ScriptFlags)


def with_folders(flags: Flags) -> Flags:
    """The flags with folders where none are given: OPENAI_LOGDIR, or a new folder in /tmp.

    Raises:
        ValueError: if a launcher started several processes: each would make a folder of its own;
            or if the variable names the home folder of nobody.
    """
    folder = flags.log_dir or _folder_of_environment()
    if not folder and not flags.dry_run:
        if read_launch(os.environ).world_size > 1:
            raise ValueError(
                f"several processes need one folder: give --log_dir, or set {LOGDIR_VARIABLE}"
            )
        folder = tempfile.mkdtemp(prefix=time.strftime("openai-%Y-%m-%d-%H-%M-%S-"))
    names = ("log_dir", "output_dir", "model_save_dir")
    known: dict[str, Any] = {
        name: getattr(flags, name) or folder for name in names if hasattr(flags, name)
    }
    return replace(flags, **known)


def save_dir_of(args: argparse.Namespace) -> str:
    """Where the checkpoints of a training are, before `with_folders`; empty: nowhere yet."""
    return args.model_save_dir or args.log_dir or _folder_of_environment()


def _folder_of_environment() -> str:
    try:
        return with_home(os.environ.get(LOGDIR_VARIABLE, ""))
    except ValueError as error:
        raise ValueError(f"{LOGDIR_VARIABLE}: {error}") from None


@dataclass(frozen=True)
class ClassifierPrecisionFlags:
    """In which numbers a classifier computes."""

    classifier_use_fp16: bool = flag(False, "compute in fp16", is_free=True)

    @property
    def asked_precision(self) -> Precision:
        """What the flag asks for."""
        return Precision.FP16 if self.classifier_use_fp16 else Precision.FP32


@dataclass(frozen=True)
class ClassifierFlags(ClassifierPrecisionFlags):
    """The classifier p(y | x_t); defaults are those of guided-diffusion's published ones."""

    classifier_width: int = flag(128, "base width of the classifier")
    classifier_depth: int = flag(2, "residual blocks per resolution (published at 64 pixels: 4)")
    classifier_attention_resolutions: str = flag(
        "32,16,8", "sides at which to attend, pixels, comma separated"
    )
    classifier_channel_mult: str = flag(
        "", "width of each resolution in base widths; empty: by image_size"
    )
    classifier_num_head_channels: int = flag(64, "channels per attention head")
    classifier_use_scale_shift_norm: bool = flag(
        True, "the embedding scales and shifts normalised features"
    )
    classifier_resblock_updown: bool = flag(True, "change resolution inside residual blocks")
    classifier_pool: str = flag("attention", "how places become one vector", POOLS)


@dataclass(frozen=True)
class GuideFlags(ClassifierFlags):
    """The classifier whose gradient guides the sampler."""

    classifier_path: str = flag("", "checkpoint of a classifier that guides; empty: none")
    classifier_scale: float = flag(1.0, "strength of its guidance")


@dataclass(frozen=True)
class ClassifierImageFlags(ImageShape):
    """The images that it is for."""

    num_classes: int = flag(1000, "number of class labels")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_classes=1)


@dataclass(frozen=True)
class ClassifierProcessFlags(ImageDiffusionFlags):
    """The process whose noisy images it is to know: as for the denoiser that it will guide."""

    noised: bool = flag(True, "train on noisy images (a guide must; an evaluator need not)")

    @property
    def known_noise(self) -> FlagValues:
        """What of it a classifier depends on; a guide's must be that of its denoiser."""
        return {**noise_of(self), "noised": self.noised}


@dataclass(frozen=True)
class ClassifierValidationFlags(ValidationExtent):
    """On which images a classifier is judged while it trains, and how often."""

    val_data_dir: str = flag(
        "", "folder of labelled images to judge the classifier on while it trains; empty: none"
    )
    val_images: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_interval and not self.val_data_dir:
            raise ValueError(
                f"--val_interval {self.val_interval} needs images to validate on: give their "
                "folder with --val_data_dir"
            )


@dataclass(frozen=True)
class ClassifierTrainFlags(
    SaveFlags, DiffusionTrainFlags, ClassifierPrecisionFlags, ClassifierValidationFlags
):
    """Training."""

    lr: float = 3e-4
    weight_decay: float = 0.05
    max_step: int = 150000

    def __post_init__(self) -> None:
        ClassifierValidationFlags.__post_init__(self)
        SaveFlags.__post_init__(self)

    @property
    def asked_precision(self) -> Precision:
        """What the flags of training and classifier ask for together.

        Raises:
            ValueError: they exclude each other.
        """
        use_fp16 = self.use_fp16 or self.classifier_use_fp16
        return PrecisionFlags(use_fp16=use_fp16, use_bf16=self.use_bf16).asked_precision


def noise_of(process: DiffusionFlags) -> FlagValues:
    """The flags of a process that decide how noisy an image is at which t."""
    names = ("diffusion_steps", "noise_schedule", "rescale_timesteps")
    return {name: getattr(process, name) for name in names}


def guide_flags(args: argparse.Namespace) -> GuideFlags:
    """The guide's flags; refuses those of a classifier that is not there."""
    guide = from_args(GuideFlags, args)
    given = sorted(name for name in args.given_flags if name.startswith("classifier_"))
    if given and not guide.classifier_path:
        raise ValueError(f"--{', --'.join(given)}: give --classifier_path with them")
    return guide


CHECKPOINT_DIR = "checkpoints/image_ddpm"

_HYBRID: dict[str, object] = {
    "learn_sigma": True,
    "diffusion_steps": 4000,
    "noise_schedule": "cosine",
}
_VLB = {**_HYBRID, "use_kl": True, "schedule_sampler": "loss-second-moment"}
_IMAGENET_64 = {"image_size": 64, "num_channels": 128, "num_res_blocks": 3, "batch_size": 128}
_CIFAR_10 = {
    "image_size": 32,
    "num_channels": 128,
    "num_res_blocks": 3,
    "dropout": 0.3,
    "lr": 1e-4,
    "batch_size": 128,
}
_UNSCALED = {"rescale_timesteps": False, "rescale_learned_sigmas": False}
_LSUN_IDDPM = {
    **_UNSCALED,
    "image_size": 256,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 1,
    "learn_sigma": True,
    "use_scale_shift_norm": False,
    "attention_resolutions": "16",
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
}
_GUIDED = {
    **_UNSCALED,
    "attention_resolutions": "32,16,8",
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "learn_sigma": True,
    "num_channels": 256,
    "num_res_blocks": 2,
    "num_head_channels": 64,
    "resblock_updown": True,
    "use_fp16": True,
}
_LSUN_GUIDED = {"image_size": 256, "dropout": 0.1}
_OWN: Mapping[str, Mapping[str, object]] = {
    "64x64_diffusion": {
        "image_size": 64,
        "num_channels": 192,
        "num_res_blocks": 3,
        "class_cond": True,
        "dropout": 0.1,
        "noise_schedule": "cosine",
        "use_new_attention_order": True,
    },
    "128x128_diffusion": {
        "image_size": 128,
        "class_cond": True,
        "num_head_channels": -1,
        "num_heads": 4,
    },
    "256x256_diffusion": {"image_size": 256, "class_cond": True},
    "256x256_diffusion_uncond": {"image_size": 256},
    "512x512_diffusion": {"image_size": 512, "class_cond": True, "use_fp16": False},
    "lsun_bedroom": _LSUN_GUIDED,
    "lsun_cat": _LSUN_GUIDED,
    "lsun_horse": _LSUN_GUIDED,
    "lsun_horse_nodropout": {**_LSUN_GUIDED, "dropout": 0.0},
}
_LSUN_UNCOND = {**_LSUN_IDDPM, "batch_size": 128}
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "imagenet64_uncond_100M": make_preset(
            "imagenet64_uncond_100M_1500K.pt", _IMAGENET_64, _HYBRID, lr=1e-4
        ),
        "imagenet64_uncond_vlb_100M": make_preset(
            "imagenet64_uncond_vlb_100M_1500K.pt", _IMAGENET_64, _VLB, lr=1e-4
        ),
        "cifar10_uncond_50M": make_preset("cifar10_uncond_50M_500K.pt", _CIFAR_10, _HYBRID),
        "cifar10_uncond_vlb_50M": make_preset("cifar10_uncond_vlb_50M_500K.pt", _CIFAR_10, _VLB),
        "imagenet64_cond_270M": make_preset(
            "imagenet64_cond_270M_250K.pt",
            {**_IMAGENET_64, **_HYBRID, **_UNSCALED, "num_channels": 192, "class_cond": True},
            lr=3e-4,
            batch_size=2048,
        ),
        "lsun_uncond_100M_bs128": make_preset(
            "lsun_uncond_100M_1200K_bs128.pt", _LSUN_UNCOND, lr=1e-4
        ),
        "lsun_uncond_100M_bs64": make_preset(
            "lsun_uncond_100M_2400K_bs64.pt", _LSUN_UNCOND, lr=2e-5
        ),
        **{name: make_preset(f"{name}.pt", _GUIDED, own) for name, own in _OWN.items()},
    }
)
_CLASSIFIER = {
    "classifier_width": 128,
    "classifier_attention_resolutions": "32,16,8",
    "classifier_pool": "attention",
    "classifier_resblock_updown": True,
    "classifier_use_scale_shift_norm": True,
}
CLASSIFIER_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        f"{size}x{size}_classifier": make_preset(
            f"{size}x{size}_classifier.pt", _CLASSIFIER, classifier_depth=4 if size == 64 else 2
        )
        for size in (64, 128, 256, 512)
    }
)


@dataclass(frozen=True)
class PresetFlags:
    """The flags of a published model; flags given beside it go first."""

    preset: str = flag("", "name of a published model", tuple(PRESETS))


@dataclass(frozen=True)
class ClassifierPresetFlags:
    """The same of a published classifier."""

    classifier_preset: str = flag("", "name of a published classifier", tuple(CLASSIFIER_PRESETS))


def apply_presets(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the values of the presets for the flags that were not given."""
    args = apply_preset(args, PRESETS, CHECKPOINT_DIR)
    if hasattr(args, "classifier_preset"):
        names = {"flag": "classifier_preset", "path_flag": "classifier_path"}
        args = apply_preset(args, CLASSIFIER_PRESETS, CHECKPOINT_DIR, **names)
    return args
