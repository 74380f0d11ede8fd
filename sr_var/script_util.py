"""From flags to networks and processes, and the files that remember a run's model flags.

torch is imported when a network is made, so that scripts can parse and refuse first.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ddpm.flags import DiffusionFlags
from ddpm.process import create_diffusion
from models.config import (
    UNetConfig,
    default_diffusion_channel_mult,
    default_regression_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from sr_var.flags.nets import BaselineModelFlags
from sr_var.flags.scripts import MeanModelFlags, SRDiffusionModelFlags, VarModelFlags
from utils.script_util import FlagValues, defaults

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from models.unet import SuperResModel, UNetModel, VarianceModel


def mean_model_defaults() -> FlagValues:
    """Flag → default of the mean net."""
    return defaults(MeanModelFlags)


def var_model_defaults() -> FlagValues:
    """Flag → default of the variance net."""
    return defaults(VarModelFlags)


def sr_model_and_diffusion_defaults() -> FlagValues:
    """Flag → default of the diffusion model: its network and its process."""
    return {**defaults(SRDiffusionModelFlags), **defaults(DiffusionFlags)}


def create_mean_model(**flags: Any) -> UNetModel:
    """The mean net of the flags (:class:`MeanModelFlags`; what is left out keeps its default).

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a value that makes no network.
    """
    from models.unet import UNetModel

    return UNetModel(_regression_config(MeanModelFlags(**flags)))


def create_var_model(**flags: Any) -> VarianceModel:
    """The variance net of the flags (:class:`VarModelFlags`).

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a value that makes no network.
    """
    from models.unet import VarianceModel

    parsed = VarModelFlags(**flags)
    if parsed.predict_residual:
        raise ValueError("--predict_residual is for the mean net; leave it out for the variance")
    return VarianceModel(_regression_config(parsed, last_layer_type=parsed.last_layer_type))


def create_baseline_model(**flags: Any) -> UNetModel:
    """The one network of a baseline (:class:`BaselineModelFlags`), its outputs side by side.

    ``predict_residual`` is left to ``sr_var.baseline``: there are more outputs than inputs.

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a value that makes no network.
    """
    from models.unet import UNetModel

    parsed = BaselineModelFlags(**flags)
    own = {"last_layer_type": "none", "predict_residual": False}
    out_channels = parsed.out_channels * parsed.num_outputs
    return UNetModel(_regression_config(parsed, out_channels=out_channels, **own))


def sr_create_model_and_diffusion(**flags: Any) -> tuple[SuperResModel, GaussianDiffusion]:
    """The denoiser and the process of the flags.

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a value that makes no network or no process.
    """
    names = {field.name for field in dataclasses.fields(DiffusionFlags)}
    process = {name: value for name, value in flags.items() if name in names}
    rest = {name: value for name, value in flags.items() if name not in names}
    diffusion_flags = DiffusionFlags(**process)
    model = create_sr_model(learn_sigma=diffusion_flags.learn_sigma, **rest)
    return model, create_diffusion(diffusion_flags)


def denoiser_flags(flags: SRDiffusionModelFlags, process: DiffusionFlags) -> FlagValues:
    """The keywords of :func:`create_sr_model`.

    Raises:
        ValueError: if a residual is asked of a network that predicts noise.
    """
    if flags.predict_residual and not process.predict_xstart:
        raise ValueError(
            "--predict_residual True adds the low-res image to a predicted image; give "
            "--predict_xstart True with it"
        )
    return {**vars(flags), "learn_sigma": process.learn_sigma}


def create_sr_model(*, learn_sigma: bool, **flags: Any) -> SuperResModel:
    """The denoiser of :class:`SRDiffusionModelFlags`; twice the channels with ``learn_sigma``."""
    from models.unet import SuperResModel

    parsed = SRDiffusionModelFlags(**flags)
    _check_factor(parsed.large_size, parsed.small_size)
    own = {field.name for field in dataclasses.fields(UNetConfig)}
    shared = {name: value for name, value in vars(parsed).items() if name in own}
    shared |= {
        "image_size": parsed.large_size,
        "model_channels": parsed.num_channels,
        "out_channels": 6 if learn_sigma else 3,
        "num_classes": parsed.num_classes if parsed.class_cond else None,
        "attention_resolutions": parse_attention_resolutions(parsed.attention_resolutions),
        "channel_mult": parse_channel_mult(parsed.channel_mult)
        if parsed.channel_mult
        else default_diffusion_channel_mult(parsed.large_size),
    }
    return SuperResModel(UNetConfig(**shared))


def _regression_config(flags: MeanModelFlags, **more: Any) -> UNetConfig:
    _check_factor(flags.large_size, flags.small_size)
    own = {field.name for field in dataclasses.fields(UNetConfig)}
    shared = {name: value for name, value in vars(flags).items() if name in own}
    shared |= {
        "image_size": flags.large_size,
        "attention_resolutions": parse_attention_resolutions(flags.attention_resolutions),
        "channel_mult": parse_channel_mult(flags.channel_mult)
        if flags.channel_mult
        else default_regression_channel_mult(flags.large_size),
    }
    return UNetConfig(**{**shared, **more})


def _check_factor(large_size: int, small_size: int) -> None:
    if large_size < 1:
        raise ValueError(f"--large_size {large_size} must be at least 1")
    if small_size < 1 or large_size % small_size:
        raise ValueError(
            f"--large_size {large_size} must be a multiple of --small_size {small_size}"
        )
