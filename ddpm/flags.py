"""The flags that every diffusion task has; no torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.config import ACTIVATIONS
from utils.flags.groups import Compute, FrozenPrecision, PrecisionFlags, ScriptFlags
from utils.flags.training import TrainFlags
from utils.script_util import FlagValues, flag, with_values

# the keys of diffusion.samplers.SAMPLERS, which needs torch
SAMPLER_NAMES = (
    "ancestral",
    "ddim",
    "plms",
    "dpm_solver_2",
    "dpmpp_2m",
    "dpmpp_3m",
    "dpmpp_2m_sde",
)
# what --labels takes for one sample of each class, and what pictures of samples may be
EACH = "each"
PICTURE_FORMATS = ("png", "jpg", "webp", "tif")


@dataclass(frozen=True)
class UNetFlags(PrecisionFlags):
    """What every U-Net has, of whatever task."""

    num_res_blocks: int = flag(2, "residual blocks per resolution")
    num_heads: int = flag(4, "attention heads")
    num_heads_upsample: int = flag(-1, "attention heads on the way up; -1: as num_heads")
    num_head_channels: int = flag(-1, "channels per attention head; -1: by num_heads")
    attention_resolutions: str = flag("16,8", "sides at which to attend, pixels, comma separated")
    channel_mult: str = flag(
        "", "width of each resolution in base widths; empty: by the image size"
    )
    dropout: float = flag(0.0, "dropout probability", is_free=True)
    use_checkpoint: bool = flag(
        False, "recompute activations in the backward pass: less memory", is_free=True
    )
    resblock_updown: bool = flag(False, "change resolution inside residual blocks")
    use_new_attention_order: bool = flag(False, "split q, k, v before the heads")
    act: str = flag(
        "silu", "the activation, everywhere in the network (lrelu: 0.1 x below 0)", ACTIVATIONS
    )


@dataclass(frozen=True)
class ClassFlags:
    """Whether a network is told the class of an image."""

    class_cond: bool = flag(False, "condition on the class label")
    num_classes: int = flag(1000, "number of class labels (with class_cond)")

    @property
    def num_labels(self) -> int | None:
        """Labels that the network knows; None for one without classes."""
        return self.num_classes if self.class_cond else None


@dataclass(frozen=True)
class DenoiserFlags(ClassFlags, UNetFlags):
    """The denoising U-Net, whatever its images are conditioned on."""

    num_channels: int = flag(128, "base width of the network")
    use_scale_shift_norm: bool = flag(True, "the embedding scales and shifts normalised features")


@dataclass(frozen=True)
class ScheduleFlags:
    """The noising process and the steps back."""

    diffusion_steps: int = flag(1000, "steps of the whole noising process")
    noise_schedule: str = flag(
        "linear",
        "how noise grows with t; shifted_cosine: a fifth of cosine's noise, for details alone; "
        "sqrt: the roots of linear's variances; sqrt_linear: another name of linear",
        ("linear", "cosine", "shifted_cosine", "sqrt", "sqrt_linear"),
    )
    timestep_respacing: str = flag(
        "", "steps to sample with: 250, logsnr25, ddim50, or 10,10,10", is_free=True
    )


@dataclass(frozen=True)
class DiffusionFlags(ScheduleFlags):
    """The noising process and what the network predicts."""

    learn_sigma: bool = flag(False, "the network also predicts the variance of each step")
    use_kl: bool = flag(False, "train on the variational bound")
    loss_type: str = flag(
        "mse",
        "of the prediction, without use_kl: the squared error; the others are less drawn by large "
        "errors, and their minimiser is no conditional mean",
        ("mse", "l1", "huber", "smooth_l1"),
    )
    predict_xstart: bool = flag(False, "the network predicts x_0 instead of the noise")
    rescale_timesteps: bool = flag(False, "hand the network t scaled to 0..1000")
    rescale_learned_sigmas: bool = flag(False, "rescaled variational term beside the squared error")
    sigma_small: bool = flag(
        False, "smaller fixed variance, the posterior's (without learn_sigma)", is_free=True
    )


@dataclass(frozen=True)
class DiffusionTrainFlags(TrainFlags):
    """Training of a network that sees noisy images."""

    schedule_sampler: str = flag(
        "uniform", "how training draws t", ("uniform", "loss-second-moment")
    )


@dataclass(frozen=True)
class TrainedFlags:
    """Which denoiser is used, and how."""

    model_path: str = flag("", "checkpoint of the network; empty: that of the preset")
    clip_denoised: bool = flag(True, "clip the predicted image to [-1, 1] at every step")


@dataclass(frozen=True)
class SamplerFlags(TrainedFlags, Compute, FrozenPrecision, ScriptFlags):
    """How the reverse process of which network is integrated, and where its samples go."""

    sampler: str = flag("", "how to integrate; left out: ancestral", SAMPLER_NAMES)
    use_ddim: bool = flag(False, "the same as --sampler ddim")
    batch_size: int = flag(
        1, "samples per network evaluation and process; auto: found by timing", is_auto=True
    )
    output_dir: str = flag("", "folder of the samples")
    eta: float = flag(0.0, "noise of ddim: 0 none, 1 as much as ancestral")

    def __post_init__(self) -> None:
        """Refuse two samplers at once."""
        if self.use_ddim and self.sampler not in ("", "ddim"):
            raise ValueError(
                f"--use_ddim True and --sampler {self.sampler} contradict each other; leave out one"
            )

    @property
    def chosen_sampler(self) -> str:
        """`sampler`; where that is left out, ancestral or what `use_ddim` asks for."""
        return self.sampler or ("ddim" if self.use_ddim else "ancestral")


# what belongs to a training; a sampling script has a batch size of another kind
_TRAINING_ONLY = ("lr", "batch_size", "schedule_sampler")


@dataclass(frozen=True)
class Preset:
    """One published model."""

    file: str  # its checkpoint's published name
    flags: Mapping[str, Any]  # what differs from the scripts' defaults


def make_preset(file: str, *parts: Mapping[str, object], **more: Any) -> Preset:
    """A preset of flags that are put together; later ones win."""
    flags: FlagValues = {}
    for part in (*parts, more):
        flags |= part
    return Preset(file, MappingProxyType(flags))


def apply_preset(
    args: argparse.Namespace,
    presets: Mapping[str, Preset],
    checkpoint_dir: str,
    *,
    flag: str = "preset",
    path_flag: str = "model_path",
) -> argparse.Namespace:
    """The arguments with the preset's values for the flags that were not given.

    They count as given. `path_flag`, where the script has it, becomes
    `<checkpoint_dir>/<published file>`.
    """
    name = getattr(args, flag)
    if not name:
        return args
    values = dict(presets[name].flags)
    if hasattr(args, path_flag):
        values = {key: value for key, value in values.items() if key not in _TRAINING_ONLY}
        values[path_flag] = os.path.join(checkpoint_dir, presets[name].file)
    changed = {
        key: value
        for key, value in values.items()
        if hasattr(args, key) and key not in args.given_flags
    }
    given = args.given_flags | changed.keys()
    return with_values(args, **changed, given_flags=given)
