"""Nets for the tests: small configurations, and weights that are not zero."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from models.config import UNetConfig
from tests import golden_recipe

ModuleT = TypeVar("ModuleT", bound=nn.Module)


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
