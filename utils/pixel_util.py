"""Grey levels to floats in [-1, 1] and back, on tensors; numpy's side is in ``image_util``."""

from __future__ import annotations

import torch
from torch import Tensor


def bytes_to_image(image_uint8: Tensor) -> Tensor:
    """Grey levels 0..255 to float in [-1, 1]."""
    return image_uint8.to(torch.float32) / 127.5 - 1


def image_to_255(image: Tensor) -> Tensor:
    """Float in [-1, 1] to grey levels, neither rounded nor clipped."""
    return (image + 1) * 127.5


def image_to_bytes(image: Tensor) -> Tensor:
    """Float in [-1, 1] to the nearest grey level, clipped to 0..255; all 256 levels survive."""
    return image_to_255(image).round().clamp(0, 255).to(torch.uint8)
