"""The flags of the noise-aware classifier that may guide a sampler; no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ddpm.flags import DiffusionFlags
from image_ddpm.flags import ImageDiffusionFlags, ImageShape, SaveFlags
from models.config import POOLS
from utils.script_util import flag, from_args, require_at_least


@dataclass(frozen=True)
class ClassifierFlags:
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
    classifier_use_fp16: bool = flag(False, "compute in fp16", is_free=True)


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
        """Refuses what no image and no class is."""
        super().__post_init__()
        require_at_least(self, num_classes=1)


@dataclass(frozen=True)
class ClassifierProcessFlags(ImageDiffusionFlags):
    """The process whose noisy images it is to know: as for the denoiser that it will guide."""

    noised: bool = flag(True, "train on noisy images (a guide must; an evaluator need not)")

    @property
    def known_noise(self) -> dict[str, Any]:
        """What of it a classifier depends on; a guide's must be that of its denoiser."""
        return {**noise_of(self), "noised": self.noised}


@dataclass(frozen=True)
class ClassifierTrainFlags(SaveFlags):
    """Training."""

    lr: float = 3e-4
    weight_decay: float = 0.05
    max_step: int = 150000


def noise_of(process: DiffusionFlags) -> dict[str, Any]:
    """The flags of a process that decide how noisy an image is at which t."""
    names = ("diffusion_steps", "noise_schedule", "rescale_timesteps")
    return {name: getattr(process, name) for name in names}


def settle_guide(args: argparse.Namespace) -> GuideFlags:
    """The guide's flags; refuses those of a classifier that is not there."""
    guide = from_args(GuideFlags, args)
    given = sorted(name for name in args.given_flags if name.startswith("classifier_"))
    if given and not guide.classifier_path:
        raise ValueError(f"--{', --'.join(given)}: give --classifier_path with them")
    return guide
