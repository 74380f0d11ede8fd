"""From flags to the networks of the task; torch is imported when one is made."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ddpm.process import denoiser_identity
from image_ddpm.flags import ImageDiffusionFlags, ImageModelFlags
from models.config import (
    UNetConfig,
    default_diffusion_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from utils.files.identity import Identity
from utils.script_util import defaults

if TYPE_CHECKING:
    from models.unet import TimeConditionedUNet

# of published models that differ from the upsamplers, or whose sizes those do not have
_CHANNEL_MULT = MappingProxyType(
    {512: (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0), 32: (1.0, 2.0, 2.0, 2.0)}
)


def image_model_and_diffusion_defaults() -> dict[str, Any]:
    """Flag → default of the network and the process."""
    return {**defaults(ImageModelFlags), **defaults(ImageDiffusionFlags)}


def channel_mult(image_size: int, text: str) -> tuple[float, ...]:
    """The multipliers of ``--channel_mult``, or those of the size where it is empty.

    Raises:
        ValueError: if there are none for the size; names the flag.
    """
    if text:
        return parse_channel_mult(text)
    if image_size in _CHANNEL_MULT:
        return _CHANNEL_MULT[image_size]
    return default_diffusion_channel_mult(image_size)


def model_keywords(flags: ImageModelFlags, process: ImageDiffusionFlags) -> dict[str, Any]:
    """The keywords of :func:`create_image_model`."""
    return {**vars(flags), "learn_sigma": process.learn_sigma}


def image_identity(
    flags: ImageModelFlags, process: ImageDiffusionFlags, *, is_training: bool
) -> Identity:
    """What the checkpoints of a denoiser are (``denoiser_identity``)."""
    return denoiser_identity("TimeConditionedUNet", flags, process, is_training=is_training)


def create_image_model(*, learn_sigma: bool, **flags: Any) -> TimeConditionedUNet:
    """The denoiser of :class:`ImageModelFlags`; twice the channels with ``learn_sigma``.

    With ``class_dropout`` it has one more class, 'none', the last one.

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a value that makes no network.
    """
    from models.unet import TimeConditionedUNet

    parsed = ImageModelFlags(**flags)
    own = {field.name for field in dataclasses.fields(UNetConfig)}
    shared = {name: value for name, value in vars(parsed).items() if name in own}
    num_classes = parsed.num_classes + (parsed.null_label is not None)
    shared |= {
        "model_channels": parsed.num_channels,
        "out_channels": parsed.in_channels * (2 if learn_sigma else 1),
        "num_classes": num_classes if parsed.class_cond else None,
        "attention_resolutions": parse_attention_resolutions(parsed.attention_resolutions),
        "channel_mult": channel_mult(parsed.image_size, parsed.channel_mult),
    }
    return TimeConditionedUNet(UNetConfig(**shared))
