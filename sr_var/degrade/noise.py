"""Degradations by noise, drawn from a generator an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sr_var.degrade.part import Part, Range, by_image, each, generators
from utils.metrics import HALF_RANGE_255


class Noise(Part):
    """X = Y + σ e, e standard normal for each value of its own; not clipped."""

    name = "noise"
    range = Range(0, 10_000, "stds in grey levels from 0 on")
    is_linear = True
    is_noise_free = False
    is_random = True
    is_made_on_cpu = True

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The noisy images."""
        own = generators(seeds)
        noise = each(lambda i: torch.randn(image.shape[1:], generator=own[i]), len(own)).to(image)
        return image + by_image(level / HALF_RANGE_255, image) * noise


class Poisson(Part):
    """X = Poisson(p·y)/p, y from 0 (black) to 1 (white): p photons are counted where it is white.

    E[X | Y] = Y, Var[X | Y] = y/p. A y below 0 counts as 0.
    """

    name = "poisson"
    range = Range(0.01, 1e6, "photons at white from 0.01 to 1000000")
    is_noise_free = False
    is_random = True
    is_made_on_cpu = True

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The counted images, in the range of the images."""
        peak = by_image(level, image)
        rate = ((image + 1) / 2 * peak).clamp(min=0).float().cpu()
        own = generators(seeds)
        counts = each(lambda i: torch.poisson(rate[i], generator=own[i]), len(own))
        return 2 * counts.to(image) / peak - 1
