"""Sub-pixel nets that see an image with noise, or some of its pixels, beside the low-res image.

The body of `models.subpixel` at the low-res side; what is seen at the high-res side enters it as
channels, a block of pixels each. X is (N, 6 or 7, H, W): each low-res pixel repeated to its block,
the observed image, and the mask where there is one, as `area:4&noise:S`, `area:4&mask:P` make it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import SubpixelConfig
from models.layers import last_layer, project, smooth_base
from models.subpixel import SubpixelBase
from oracle.law import block_sums, oracle_law, repeat_blocks
from utils.metrics import HALF_RANGE_255

FACTOR = 4
MASK = "mask"
# what the mean net's weight of the noisy pixels starts from, before its sigmoid
_START_OF_GAIN = -1.5
# masks vary more than images, and what the filled base does not tell of them is little
_MASK_SCALE = 0.1
# of B and σ, which are at most 0.25
_EDGE_SCALE = 10.0


def observe(
    low_res: Tensor, y: Tensor, kind: str, level: float, generator: torch.Generator
) -> Tensor:
    """X of the high-res images: `kind` noise of std `level` grey levels, or a mask that hides so
    large a share of the pixels, (N, 6 or 7, H, W).
    """  # fmt: skip
    coarse = repeat_blocks(low_res, y.shape[-1] // low_res.shape[-1])
    if kind == MASK:
        mask = (torch.rand(y[:, :1].shape, generator=generator) >= level).to(y)
        return torch.cat([coarse, mask * y, mask], dim=1)
    noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    return torch.cat([coarse, y + level / HALF_RANGE_255 * noise], dim=1)


def parts_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The low-res image (N, 3, h, w), what is seen (N, 3, H, W), and the mask (N, 1, H, W)."""
    mask = x[:, 6:] if x.shape[1] > 6 else None
    return F.avg_pool2d(x[:, :3], FACTOR), x[:, 3:6], mask


class PointwiseBlock(nn.Module):
    """x + W₂ relu(W₁ x) in each low-res pixel, four times as wide in between.

    It takes less time than two 3×3 convolutions, and sees one pixel where these see 25.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, 4 * channels, 1),
            nn.Conv2d(4 * channels, channels, 1),
        )

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Return (N, C, h, w) for `x` of the same shape; `emb` is None, as there are no classes."""
        output: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return output


class _Observed(SubpixelBase):
    """What both nets share: how an observation enters the body, and what that is made of."""

    def __init__(
        self, config: SubpixelConfig, kind: str, images: int, *, more: int = 0, pointwise: bool
    ) -> None:
        of_mask = FACTOR**2 if kind == MASK else 0
        in_channels = config.in_channels * (1 + images * FACTOR**2) + of_mask
        super().__init__(config, in_channels + more)
        if pointwise:
            blocks = range(config.num_res_blocks)
            self.body = nn.ModuleList(PointwiseBlock(config.model_channels) for _ in blocks)

    def _of(self, shown: list[Tensor], images: list[Tensor], mask: Tensor | None) -> Tensor:
        details = torch.cat(images if mask is None else [*images, _MASK_SCALE * mask], dim=1)
        return self._run(torch.cat([*shown, F.pixel_unshuffle(details, FACTOR)], dim=1))


class ObservedMean(_Observed):
    """base + g·(z − base) + F, of a smooth base, with block means held; g and F are the body's.

    Of a mask it is the filled base and F, filled again (`fill`): what is seen stays. A net that
    `knows_edge` is told B and σ of the law, which another one must find in the low-res image.
    """

    def __init__(
        self,
        config: SubpixelConfig,
        kind: str,
        *,
        pointwise: bool = False,
        knows_edge: bool = False,
    ) -> None:
        own = replace(config, out_channels=config.out_channels * (1 if kind == MASK else 2))
        super().__init__(own, kind, 1, more=3 * knows_edge, pointwise=pointwise)
        self._knows_edge = knows_edge

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 3, H, W)."""
        low_res, seen, mask = parts_of(x)
        base = smooth_base(low_res, FACTOR)
        left = (seen if mask is None else fill(base, seen, mask, low_res)) - base
        told = [low_res, _edge_of(low_res)] if self._knows_edge else [low_res]
        output = self._of(told, [left], mask)
        if mask is None:
            change, gain = output.chunk(2, dim=1)
            return project(base + torch.sigmoid(gain + _START_OF_GAIN) * left + change, low_res)
        return fill(base + output, seen, mask, low_res)


class ObservedVariance(_Observed):
    """The variance of `ObservedMean`'s residuals; it sees what that saw, and its mean."""

    def __init__(self, config: SubpixelConfig, kind: str, *, pointwise: bool = False) -> None:
        super().__init__(config, kind, 2, pointwise=pointwise)
        with torch.no_grad():
            self.out[0].bias.fill_(-5.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 3, H, W), 0 where a mask shows a pixel; `x` ends with the mean."""
        x, mean = x[:, :-3], x[:, -3:]
        low_res, seen, mask = parts_of(x)
        base = smooth_base(low_res, FACTOR)
        left = (seen if mask is None else fill(base, seen, mask, low_res)) - base
        output = self._of([low_res], [left, mean - base], mask)
        variance = last_layer(output, self.config.last_layer_type)
        return variance if mask is None else variance * (1 - mask)


def _edge_of(low_res: Tensor) -> Tensor:
    """The law's B, as its steps across columns and rows, and σ: (N, 3, h, w), about [0, 2]."""
    law = oracle_law(low_res, FACTOR)
    corners = law.edge[..., ::FACTOR, ::FACTOR]  # −a(w + (1 − w)), then a(w − (1 − w))
    others = law.edge[..., ::FACTOR, FACTOR - 1 :: FACTOR]
    steps = [(others - corners) / 2, -(others + corners) / 2]
    return _EDGE_SCALE * torch.cat([*steps, law.sigma[..., ::FACTOR, ::FACTOR]], dim=1)


def fill(image: Tensor, seen: Tensor, mask: Tensor, low_res: Tensor) -> Tensor:
    """The nearest image that shows what is seen and has the block means of the low-res image.

    What a block's sum lacks is shared among its hidden pixels; those of a block without any stay.
    """
    image = torch.where(mask == 1, seen, image)
    hidden = block_sums(1 - mask, FACTOR)
    lack = (low_res * FACTOR**2 - block_sums(image, FACTOR)) / hidden.clamp(min=1)
    return image + (1 - mask) * repeat_blocks(lack, FACTOR)
