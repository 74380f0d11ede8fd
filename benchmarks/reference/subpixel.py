"""A plain eager sub-pixel mean net that loads the state_dict of the project's by name.

Convolutions with replicated borders and a pixel shuffle (Lim et al. 2017, arXiv 1707.02921) on top
of the bilinear upsampling, both written out and contiguous; low-res images alone, without labels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        output: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return output


class PlainSubpixel(nn.Module):
    """The mean net of a configuration whose mean is `consistent`, or not.

    Raises:
        ValueError: for a configuration that is not written here.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.shows_whole or config.num_classes is not None or config.res_block != "conv3x3":
            raise ValueError("the plain sub-pixel net sees low-res images alone, by 3×3 blocks")
        self.factor, self.is_consistent = config.factor, config.consistent
        width = config.model_channels
        self.head = _conv(config.in_channels, width)
        self.body = nn.ModuleList(PlainBlock(width) for _ in range(config.num_res_blocks))
        self.body_end = _conv(width, width)
        self.out = nn.Sequential(_conv(width, config.out_channels * config.factor**2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, f·h, f·w) for low-res images (N, C, h, w)."""
        h = start = self.head(x)
        for block in self.body:
            h = block(h)
        output = F.pixel_shuffle(self.out(start + self.body_end(h)), self.factor).to(x.dtype)
        base = F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)
        output = self._projected(base, x) + output
        return self._projected(output, x) if self.is_consistent else output

    def _projected(self, image: Tensor, x: Tensor) -> Tensor:
        left = x - F.avg_pool2d(image, self.factor)
        return image + F.interpolate(left, scale_factor=self.factor, mode="nearest")


def plain_subpixel(model: nn.Module) -> PlainSubpixel:
    """The plain network of a mean net, with a copy of its weights, to be trained."""
    twin = PlainSubpixel(model.config)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    return twin


def _conv(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode="replicate")
