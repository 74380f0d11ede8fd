"""Networks to measure: the project's own, by a short name, with weights that are not zero.

A fresh network's last layers are zero, and zeros could hide a wrong result; so every parameter is
drawn, scaled so that activations keep their size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from models.config import CONV3X3, SubpixelConfig, UNetConfig
from models.subpixel import SubpixelDenoiser, SubpixelModel, SubpixelVarianceModel
from models.unet import SuperResModel, TimeConditionedUNet, UNetModel
from sr_var.flags.nets import PRESETS
from sr_var.script_util import create_sr_model

UPSAMPLER = "64_256_upsampler"
NUM_CLASSES = 1000
_SMALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "small_64_256": {"num_channels": 64, "channel_mult": "1,1,2,2,4,4"},
        "small_16_64": {"num_channels": 64, "large_size": 64, "small_size": 16},
        "tiny": {
            **{"num_channels": 16, "num_res_blocks": 1, "channel_mult": "1,2"},
            **{"large_size": 32, "small_size": 8, "attention_resolutions": "16"},
        },
    }
)
NETS = (UPSAMPLER, *_SMALL)


def upsampler(name: str, **changes: Any) -> SuperResModel:
    """The published 64→256 upsampler, or a smaller one of its kind, frozen, in float32.

    Args:
        name: one of `NETS`.
        changes: flags of `SRDiffusionModelFlags`.
    """
    preset = dict(PRESETS[UPSAMPLER].flags)
    process = ("learn_sigma", "noise_schedule", "diffusion_steps")
    flags = {key: value for key, value in preset.items() if key not in process}
    flags |= {"num_classes": NUM_CLASSES, **_SMALL.get(name, {}), **changes}
    model = create_sr_model(learn_sigma=True, **flags)
    found: SuperResModel = _frozen(model)
    return found


def denoiser(side: int, width: int) -> TimeConditionedUNet:
    """A denoiser of images of `side` pixels that predicts the noise and no variance, frozen."""
    config = UNetConfig(
        image_size=side,
        channel_mult=(1, 2, 3, 4),
        model_channels=width,
        attention_resolutions=(side // 4, side // 8) if side <= 64 else (side // 8,),
        use_scale_shift_norm=True,
    )
    found: TimeConditionedUNet = _frozen(TimeConditionedUNet(config))
    return found


def mean_net(side: int, width: int) -> UNetModel:
    """A mean net for images of `side` pixels, ready to be trained."""
    config = UNetConfig(
        image_size=side,
        channel_mult=(1, 2, 2, 4),
        model_channels=width,
        attention_resolutions=(side // 4, side // 8),
    )
    return fill(UNetModel(config))


def subpixel(factor: int, width: int, num_blocks: int, res_block: str = CONV3X3) -> SubpixelModel:
    """A mean net that works at the low-res side, frozen."""
    config = SubpixelConfig(
        factor=factor,
        model_channels=width,
        num_res_blocks=num_blocks,
        consistent=True,
        res_block=res_block,
    )
    found: SubpixelModel = _frozen(SubpixelModel(config))
    return found


def small_subpixel(factor: int) -> SubpixelModel:
    """The mean net of the README's "Your own images": 32 channels, 4 blocks."""
    return subpixel(factor, 32, 4)


def small_subpixel_variance(factor: int) -> SubpixelVarianceModel:
    """The variance net beside it."""
    config = SubpixelConfig(
        factor=factor, model_channels=32, num_res_blocks=4, last_layer_type="softplus"
    )
    found: SubpixelVarianceModel = _frozen(SubpixelVarianceModel(config))
    return found


def small_subpixel_denoiser(factor: int) -> SubpixelDenoiser:
    """A denoiser as large, of a chain of ten steps."""
    config = SubpixelConfig(factor=factor, model_channels=32, num_res_blocks=4)
    sigmas = torch.logspace(-2, 1, 10).tolist()
    found: SubpixelDenoiser = _frozen(SubpixelDenoiser(config, sigmas))
    return found


def large_subpixel(factor: int) -> SubpixelModel:
    """A mean net as wide and deep as the preset `subpixel_64_256`: 128 channels, 16 blocks."""
    return subpixel(factor, 128, 16)


def small_unet(side: int) -> UNetModel:
    """A mean net of 64 channels for images of `side` pixels, without attention."""
    config = UNetConfig(
        image_size=side,
        channel_mult=(1, 1, 2, 2),
        model_channels=64,
        num_res_blocks=1,
        attention_resolutions=(),
    )
    found: UNetModel = _frozen(UNetModel(config))
    return found


def _frozen(network: Any) -> Any:
    return fill(network).eval().requires_grad_(False)


def fill(model: Any, seed: int = 0) -> Any:
    """Draw every parameter: weights with variance 1 / fan-in, scales near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if parameter.ndim >= 2:
                parameter.mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.mul_(0.1).add_(float(name.endswith("weight")))
    return model


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_direct_convolutions(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same work without Winograd's filtering."""

    def direct() -> Any:
        os.environ["WINOGRAD"] = "0"
        try:
            return call()
        finally:
            del os.environ["WINOGRAD"]

    return direct
