"""Low-res images for the tests of the oracle: smooth ground, edges and noise, in [-0.5, 0.5]."""

from __future__ import annotations

import torch
from torch import Tensor


def low_res_images(num: int = 2, size: int = 6, seed: int = 0) -> Tensor:
    """(num, 3, size, size) float64 images with flat parts, edges and texture."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.randn(num, 3, size, size, generator=generator, dtype=torch.float64)
    images[:, :, :, size // 2 :] += 0.3
    images[:, :, : size // 3] -= 0.2
    images[0, :, -2:] = 0.0
    return images.clamp(-0.5, 0.5)
