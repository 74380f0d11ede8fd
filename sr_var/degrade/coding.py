"""Degradations by coding: fewer levels, or a file of few bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sr_var.degrade.part import Part, Range, by_image, each
from utils.images.pixels import bytes_to_image, image_to_bytes, to_hwc

# side of a block of a JPEG, pixels
_BLOCK = 8


class Bits(Part):
    """X = the nearest of 2^b levels, evenly from black to white; beyond them the outermost."""

    name = "bits"
    range = Range(1, 16, "whole numbers of bits from 1 to 16", is_whole=True)

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The rounded images."""
        steps = by_image(2**level - 1, image)
        return ((image + 1) / 2 * steps).round().clamp(min=0).minimum(steps) * 2 / steps - 1


class Jpeg(Part):
    """X = Y of whole grey levels, as a JPEG file of a quality shows it (Pillow's encoder)."""

    name = "jpeg"
    range = Range(1, 100, "whole qualities from 1 to 100", is_whole=True)
    is_made_on_cpu = True

    @property
    def grain(self) -> int:
        """Of a block that is transformed."""
        return _BLOCK

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The decoded images."""
        whole, qualities = image_to_bytes(image).cpu(), [int(quality) for quality in level.tolist()]
        decoded = each(lambda i: _decoded(whole[i], qualities[i]), len(whole))
        return bytes_to_image(decoded.to(image.device)).to(image.dtype)


def _decoded(image: Tensor, quality: int) -> Tensor:
    """A (C, h, w) uint8 image after its way through a JPEG file; C is 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(to_hwc(image).squeeze(-1) if len(image) == 1 else to_hwc(image)).save(
        file, "JPEG", quality=quality
    )
    pixels = np.asarray(Image.open(file, formats=["JPEG"]))
    return torch.from_numpy(pixels.reshape(*image.shape[1:], -1).transpose(2, 0, 1).copy())
