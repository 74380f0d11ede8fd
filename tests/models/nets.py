"""Nets for the tests: small configurations, and weights that are not zero."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from models.config import EncoderConfig, UNetConfig
from tests import golden_recipe

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# image size: (num_res_blocks, channel_mult)
_PUBLISHED: dict[int, tuple[int, tuple[float, ...]]] = {
    64: (4, (1.0, 2.0, 3.0, 4.0)),
    128: (2, (1.0, 1.0, 2.0, 3.0, 4.0)),
    256: (2, (1.0, 1.0, 2.0, 2.0, 4.0, 4.0)),
    512: (2, (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0)),
}


def small_config(**changes: Any) -> UNetConfig:
    """Return a two-level configuration of 16 x 16 images, attention on both levels."""
    fields: dict[str, Any] = {
        "image_size": 16,
        "channel_mult": (1, 2),
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_resolutions": (16, 8),
        "num_heads": 2,
    }
    return UNetConfig(**{**fields, **changes})


def published_classifier(image_size: int) -> EncoderConfig:
    """Return the configuration of a published ImageNet classifier, `SIZExSIZE_classifier.pt`.

    Dhariwal & Nichol 2021, appendix I.
    """
    num_res_blocks, channel_mult = _PUBLISHED[image_size]
    unet = UNetConfig(
        image_size=image_size,
        channel_mult=channel_mult,
        num_res_blocks=num_res_blocks,
        model_channels=128,
        attention_resolutions=(32, 16, 8),
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=True,
    )
    return EncoderConfig(unet=unet, num_classes=1000, pool="attention")


def fill(model: ModuleT) -> ModuleT:
    """Give every parameter the golden value of its name."""
    state = {
        name: torch.from_numpy(golden_recipe.weight(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal float32 noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
