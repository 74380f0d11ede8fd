"""What a net sees of an image with noise, or of some of its pixels, beside the low-res image.

X is (N, 51 or 67, h, w), as `area & noise:S` and `area & mask:P` make it: the low-res image, then
the blocks of the observed image as channels of a pixel, and those of the mask where there is one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracle.law import oracle_law
from utils.metrics import HALF_RANGE_255

FACTOR = 4
MASK = "mask"
# of B and σ, which are at most 0.25
_EDGE_SCALE = 10.0
EDGE_CHANNELS = 3
_CHANNELS = 3
_OF_IMAGE = _CHANNELS * (1 + FACTOR**2)


def observe(
    low_res: Tensor, y: Tensor, kind: str, level: float, generator: torch.Generator
) -> Tensor:
    """X of the high-res images: `kind` noise of std `level` grey levels, or a mask that hides so
    large a share of the pixels, (N, 51 or 67, h, w).
    """  # fmt: skip
    if kind == MASK:
        mask = (torch.rand(y[:, :1].shape, generator=generator) >= level).to(y)
        whole = torch.cat([mask * y, mask], dim=1)
    else:
        noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        whole = y + level / HALF_RANGE_255 * noise
    return torch.cat([low_res, F.pixel_unshuffle(whole, FACTOR)], dim=1)


def parts_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The low-res image (N, 3, h, w), what is seen (N, 3, H, W), and the mask (N, 1, H, W)."""
    mask = F.pixel_shuffle(x[:, _OF_IMAGE:], FACTOR) if x.shape[1] > _OF_IMAGE else None
    return x[:, :_CHANNELS], F.pixel_shuffle(x[:, _CHANNELS:_OF_IMAGE], FACTOR), mask


class ToldEdge(nn.Module):
    """A mean net that is told B and σ of the law, which another one must find in the image."""

    def __init__(self, net: nn.Module) -> None:
        """Tell `net`, which takes `EDGE_CHANNELS` channels behind X."""
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return (N, 3, H, W) for X."""
        mean: Tensor = self.net(torch.cat([x, edge_of(x[:, :_CHANNELS])], dim=1), size)
        return mean


def edge_of(low_res: Tensor) -> Tensor:
    """The law's B, as its steps across columns and rows, and σ: (N, 3, h, w), about [0, 2]."""
    law = oracle_law(low_res, FACTOR)
    corners = law.edge[..., ::FACTOR, ::FACTOR]  # −a(w + (1 − w)), then a(w − (1 − w))
    others = law.edge[..., ::FACTOR, FACTOR - 1 :: FACTOR]
    steps = [(others - corners) / 2, -(others + corners) / 2]
    return _EDGE_SCALE * torch.cat([*steps, law.sigma[..., ::FACTOR, ::FACTOR]], dim=1)
