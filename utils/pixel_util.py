"""Grey levels to floats in [-1, 1] and back, on tensors, and pictures of tensors in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import CheckpointError
from utils.image_util import write_png


def bytes_to_image(image_uint8: Tensor) -> Tensor:
    """Grey levels 0..255 to float in [-1, 1]."""
    return image_uint8.to(torch.float32) / 127.5 - 1


def image_to_255(image: Tensor) -> Tensor:
    """Float in [-1, 1] to grey levels, neither rounded nor clipped."""
    return (image + 1) * 127.5


def image_to_bytes(image: Tensor) -> Tensor:
    """Float in [-1, 1] to the nearest grey level, clipped to 0..255; all 256 levels survive."""
    return image_to_255(image).round().clamp(0, 255).to(torch.uint8)


def to_hwc(image: torch.Tensor) -> NDArray[Any]:
    """CHW tensor → contiguous HWC array on the CPU, same dtype."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def require_finite(output: torch.Tensor, path: str) -> None:
    """Refuses what has no grey level, before it becomes one.

    Raises:
        CheckpointError: names the file that would have been written.
    """
    if not bool(torch.isfinite(output).all()):
        raise CheckpointError(
            f"{path} is not written: the network's output is not finite; did training diverge, or "
            "fp16 overflow (--use_bf16 does not)?"
        )


def save_image(path: str, image: torch.Tensor) -> None:
    """Writes one CHW image in [-1, 1] as an 8-bit PNG, rounded.

    Raises:
        CheckpointError: if a value is not finite.
    """
    require_finite(image, path)
    write_png(path, to_hwc(image_to_bytes(image)))
