"""Blocks of the U-Net: resampling, residual and attention blocks, and their sequence.

Not the place for how they are arranged (`models.torso`, `models.unet`).

Attribute names and positions in each `nn.Sequential` are the checkpoint format: in a residual
block `in_layers.0/.2`, `emb_layers.1`, `out_layers.0/.3`, `skip_connection`; in an attention block
`norm`, `qkv`, `proj_out`; in a resampling layer `op` (down) or `conv` (up). Do not renumber,
reorder or rename them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import UNetConfig
from models.layers import (
    GroupNorm32,
    SiLUInPlace,
    attention,
    avg_pool_nd,
    call_with_checkpoint,
    conv_nd,
    project_tokens,
    zero_module,
)

Resampling = Literal["none", "down", "up"]


class Upsample(nn.Module):
    """Nearest-neighbour doubling of the resolution, then a 3-wide convolution if there is one."""

    def __init__(self, dims: int, channels: int, *, use_conv: bool) -> None:
        """Create the layer for `dims` spatial axes; with 3 the first keeps its length."""
        super().__init__()
        self.factors = _resampling_factors(dims)
        if use_conv:
            self.conv = conv_nd(dims, channels, channels, 3, padding=1)
        self.use_conv = use_conv

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, 2 * H, 2 * W) for `x` of shape (N, C, H, W)."""
        sides = zip(x.shape[2:], self.factors, strict=True)
        h = F.interpolate(x, tuple(side * factor for side, factor in sides), mode="nearest")
        output: Tensor = self.conv(h) if self.use_conv else h
        return output


class Downsample(nn.Module):
    """Halving of the resolution by a strided 3-wide convolution or by average pooling."""

    def __init__(self, dims: int, channels: int, *, use_conv: bool) -> None:
        """Create the layer for `dims` spatial axes; with 3 the first keeps its length."""
        super().__init__()
        factors = _resampling_factors(dims)
        self.op = (
            conv_nd(dims, channels, channels, 3, stride=factors, padding=1)
            if use_conv
            else avg_pool_nd(dims, factors)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H / 2, W / 2) for `x` of shape (N, C, H, W)."""
        h: Tensor = self.op(x)
        return h


class ResBlock(nn.Module):
    """Residual block: two normalised convolutions around an optional embedding and resampling.

    out = skip(x) + conv(norm(conv(norm(x)) + emb)), or with scale-shift norm
    out = skip(x) + conv(norm(conv(norm(x))) * (1 + scale) + shift), (scale, shift) = emb
    (Nichol & Dhariwal 2021, section 2; Dhariwal & Nichol 2021, equation 3, with 1 + scale), SiLU
    after each norm. Resampling acts on both branches, before the first convolution.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        out_channels: int,
        emb_channels: int | None,
        resampling: Resampling = "none",
    ) -> None:
        """Create a block.

        Args:
            config: reads `dims`, `dropout`, `use_checkpoint`, `use_scale_shift_norm`.
            channels: width of the input.
            out_channels: width of the output.
            emb_channels: length of the embedding; None for a block without one.
            resampling: whether the output has half, the same or twice the resolution.
        """
        super().__init__()
        self.use_checkpoint = config.use_checkpoint
        self.use_scale_shift_norm = config.use_scale_shift_norm
        self.in_layers = nn.Sequential(
            GroupNorm32(channels),
            SiLUInPlace(),
            conv_nd(config.dims, channels, out_channels, 3, padding=1),
        )
        self.resample = _plain_resampling(config.dims, channels, resampling)
        if emb_channels is not None:
            emb_out_channels = (2 if config.use_scale_shift_norm else 1) * out_channels
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, emb_out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            SiLUInPlace(),
            nn.Dropout(config.dropout),
            zero_module(conv_nd(config.dims, out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity()
            if channels == out_channels
            else conv_nd(config.dims, channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """Return (N, out_channels, H', W') for x (N, channels, H, W) and emb (N, emb_channels).

        `emb` is None exactly where the block was built without an embedding.
        """
        return call_with_checkpoint(self._forward, self.use_checkpoint, x, emb)

    def _forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h: Tensor = self.resample(self.in_layers[:-1](x))  # (N, channels, H', W')
        h = self.in_layers[-1](h)  # (N, out_channels, H', W')
        out_norm, out_rest = self.out_layers[0], self.out_layers[1:]
        if emb is None:
            h = out_norm(h)
        else:
            emb_out = self.emb_layers(emb).to(h.dtype)  # (N, out_channels or twice that)
            emb_out = emb_out.reshape(*emb_out.shape, *[1] * (h.ndim - 2))
            if self.use_scale_shift_norm:
                scale, shift = emb_out.chunk(2, dim=1)  # each (N, out_channels, 1, 1)
                h = torch.addcmul(shift, out_norm(h), 1 + scale)
            else:
                h = out_norm(h + emb_out)
        # The convolution's output is this block's own and no gradient needs it: x is added to it.
        output: Tensor = out_rest(h)
        return output.add_(self.skip_connection(self.resample(x)))


class AttentionBlock(nn.Module):
    """Residual self-attention over all pixels; `qkv` and `proj_out` are 1-wide convolutions."""

    def __init__(self, config: UNetConfig, channels: int, *, is_upsampling: bool = False) -> None:
        """Create a block of `channels` channels whose heads follow `config.heads_for`."""
        super().__init__()
        self.use_checkpoint = config.use_checkpoint
        self.use_new_order = config.use_new_attention_order
        self.num_heads = config.heads_for(channels, is_upsampling=is_upsampling)
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x (N, C, *spatial)."""
        return call_with_checkpoint(self._forward, self.use_checkpoint, x)

    def _forward(self, x: Tensor) -> Tensor:
        # Pixels as rows: the projections become matrix products and no head needs a copy.
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (N, L, C)
        qkv = project_tokens(self.qkv, tokens)  # (N, L, 3 * C)
        mixed = attention(qkv, self.num_heads, use_new_order=self.use_new_order)  # (N, L, C)
        h = project_tokens(self.proj_out, mixed).transpose(1, 2)  # (N, C, L)
        return x + h.reshape(x.shape)


class BlockSequential(nn.Sequential):
    """A sequence whose residual blocks also receive the embedding."""

    def forward(self, input: Tensor, emb: Tensor | None = None) -> Tensor:
        """Return the output of the last layer for `input` (N, C, *spatial), `emb` (N, D)."""
        h = input
        for layer in self:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
        return h


def _resampling_factors(dims: int) -> tuple[int, ...]:
    return (1, 2, 2) if dims == 3 else (2,) * dims


def _plain_resampling(dims: int, channels: int, resampling: Resampling) -> nn.Module:
    """Return the resampling inside a residual block, which has no parameters."""
    if resampling == "up":
        return Upsample(dims, channels, use_conv=False)
    if resampling == "down":
        return Downsample(dims, channels, use_conv=False)
    return nn.Identity()
