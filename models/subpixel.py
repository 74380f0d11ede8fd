"""The sub-pixel network: mean and variance nets whose work is done at the low-res side.

A body of 3×3 residual blocks (EDSR: Lim et al. 2017, arXiv 1707.02921), and a convolution whose
channels become the pixels of a block (Shi et al. 2016, arXiv 1609.05158). Borders are replicated
and nothing is averaged over the image, so that an output pixel depends on a window of the input
alone and any size will do.

Attribute names and positions are the checkpoint format: `head`, `body.I.conv1/conv2`, `body_end`,
`out.0`. Do not renumber, reorder or rename them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import SubpixelConfig
from models.hints import Shapes, explain_subpixel, shapes_of
from models.layers import (
    cast_all_but_head,
    last_layer,
    project,
    repeat_blocks,
    smooth_base,
    zero_module,
)


class PlainResBlock(nn.Module):
    """x + conv(relu(conv(x))): 3×3 convolutions with replicated borders, and no norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv3x3(channels, channels), _conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, h, w) for `x` of the same shape."""
        output: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return output


class SubpixelBase(nn.Module):
    """The owner of every parameter; subclasses say what enters and what leaves it.

    A new net returns zero. Nothing is cast by the constructor: see `convert_torso`.
    """

    def __init__(self, config: SubpixelConfig, in_channels: int) -> None:
        """Build the net; `in_channels` enter it at the low-res side."""
        super().__init__()
        self.config = config
        width, out_channels = config.model_channels, config.out_channels * config.factor**2
        self.head = _conv3x3(in_channels, width)
        self.body = nn.ModuleList(PlainResBlock(width) for _ in range(config.num_res_blocks))
        self.body_end = _conv3x3(width, width)
        self.out = nn.Sequential(zero_module(_conv3x3(width, out_channels)))

    def convert_torso(self, dtype: torch.dtype) -> None:
        """Cast, in place, every convolution but the last (see `models.blocks.Torso`)."""
        cast_all_but_head(self, dtype)

    def explain_mismatch(self, shapes: Shapes) -> str:
        """Return which flags are wrong where a state_dict does not fit (`models.hints`).

        Args:
            shapes: name → shape, of the state_dict.
        """
        return explain_subpixel(shapes, shapes_of(self.state_dict()), self.config.factor)

    @property
    def reach(self) -> int:
        """Low-res pixels in each direction that an output pixel depends on."""
        return 2 * self.config.num_res_blocks + 3

    def _run(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, f·h, f·w), in the dtype of `x`, for `x` (N, C, h, w)."""
        h = start = self.head(x.to(self.head.weight.dtype))
        for block in self.body:
            h = block(h)
        pixels = self.out((start + self.body_end(h)).to(self.out[0].weight.dtype))
        return F.pixel_shuffle(pixels.to(x.dtype), self.config.factor)


class SubpixelModel(SubpixelBase):
    """The mean net: the smooth base of the low-res image (`smooth_base`), and what the body adds.

    With other output than input channels, as a baseline has, the base is left to the caller.
    """

    def __init__(self, config: SubpixelConfig) -> None:
        super().__init__(config, config.in_channels)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return (N, out_channels, f·h, f·w).

        Args:
            x: (N, in_channels, h, w), the low-res image in [-1, 1].
            size: what is expected, as networks of other kinds need to be told.

        Raises:
            ValueError: `size` is another one.
        """
        factor = self.config.factor
        if size is not None and list(size) != [factor * side for side in x.shape[2:]]:
            raise ValueError(
                f"a sub-pixel net of factor {factor} makes {tuple(x.shape[2:])} pixels "
                f"{factor} times as large, not {tuple(size)}: give it the low-res image"
            )
        output = self._run(x)
        if self.config.out_channels != self.config.in_channels:
            return output
        output = smooth_base(x, factor) + output
        return project(output, x) if self.config.consistent else output


class SubpixelVarianceModel(SubpixelBase):
    """The variance net: it sees the low-res image, and the pixels of the mean as channels."""

    def __init__(self, config: SubpixelConfig) -> None:
        super().__init__(config, config.in_channels * (1 + config.factor**2))

    def forward(self, x: Tensor, mean: Tensor | None = None) -> Tensor:
        """Return variances (N, out_channels, f·h, f·w), in the squared unit of the images.

        Args:
            x: (N, in_channels, h, w), the low-res image in [-1, 1]; at a factor of 1 it may have
                the mean beside it in the channels.
            mean: (N, in_channels, f·h, f·w), the predicted mean.
        """
        factor = self.config.factor
        if mean is None:
            x, mean = x.chunk(2, dim=1)
        details = F.pixel_unshuffle(mean.to(x.dtype) - repeat_blocks(x, factor), factor)
        return last_layer(self._run(torch.cat([x, details], dim=1)), self.config.last_layer_type)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")
