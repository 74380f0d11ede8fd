"""Blocks of the U-Net: resampling, residual and attention blocks, and their sequence.

Attribute names and positions in each `nn.Sequential` are the checkpoint format: in a residual
block `in_layers.0/.2`, `emb_layers.1`, `out_layers.0/.3`, `skip_connection`; in an attention block
`norm`, `qkv`, `proj_out`; in a resampling layer `op` (down) or `conv` (up). Do not renumber,
reorder or rename them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import UNetConfig
from models.cpu.rules import prefers_channels_last
from models.hints import Shapes, explain_difference, shapes_of
from models.layers import (
    GroupNorm32,
    activation,
    attention,
    avg_pool_nd,
    call_with_checkpoint,
    cast_all_but_head,
    check_labels,
    conv_nd,
    project_tokens,
    timestep_embedding,
    use_kernels,
    zero_module,
)

Resampling = Literal["none", "down", "up"]


class Upsample(nn.Module):
    """Nearest-neighbour doubling of the resolution, then a 3-wide convolution if there is one.

    Of three spatial axes the first keeps its length, here and in `Downsample`.
    """

    def __init__(self, dims: int, channels: int, *, use_conv: bool) -> None:
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
    (Nichol & Dhariwal 2021, section 2; Dhariwal & Nichol 2021, equation 3, with 1 + scale), the
    activation after each norm. Resampling acts on both branches, before the first convolution.
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
            config: reads `act`, `dims`, `dropout`, `use_checkpoint`, `use_scale_shift_norm`.
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
            activation(config.act),
            conv_nd(config.dims, channels, out_channels, 3, padding=1),
        )
        self.resample = _plain_resampling(config.dims, channels, resampling)
        if emb_channels is not None:
            emb_out_channels = (2 if config.use_scale_shift_norm else 1) * out_channels
            self.emb_layers = nn.Sequential(
                activation(config.act, keeps_input=True), nn.Linear(emb_channels, emb_out_channels)
            )
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            activation(config.act),
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


class Torso(nn.Module):
    """The owner of the embedding, the input blocks and the bottleneck; it has no `forward`.

    Nothing is cast by the constructor: see `convert_torso`.
    """

    num_input_images: ClassVar[int] = 1
    is_time_conditioned: ClassVar[bool] = False

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        has_embedding = self.is_time_conditioned or config.num_classes is not None
        self.emb_channels = config.time_embed_dim if has_embedding else None
        if self.is_time_conditioned:
            width = config.time_embed_dim
            self.time_embed = nn.Sequential(
                nn.Linear(config.model_channels, width),
                activation(config.act, keeps_input=True),
                nn.Linear(width, width),
            )
        if config.num_classes is not None:
            self.label_emb = nn.Embedding(config.num_classes, config.time_embed_dim)
        input_blocks, self.input_widths = self._make_input_blocks()
        self.input_blocks = nn.ModuleList(input_blocks)
        bottom = config.widths[-1]
        self.middle_block = BlockSequential(
            self._make_res_block(bottom, bottom),
            AttentionBlock(config, bottom),
            self._make_res_block(bottom, bottom),
        )

    @property
    def _num_entering(self) -> int:
        """Channels of the input."""
        config = self.config
        return (self.num_input_images - 1) * config.in_channels + config.x_channels

    def embed_labels(self, y: Tensor) -> Tensor:
        """Return the embeddings (N, 4 * model_channels) of the labels `y` (N,).

        A denoiser's `forward` takes them in the place of labels, so that a sampling loop may
        compute them once.

        Raises:
            ValueError: the net has no classes, or `y` is not a vector of labels in range.
        """
        check_labels(y, self.config.num_classes)
        embedding: Tensor = self.label_emb(y)
        return embedding

    def convert_torso(self, dtype: torch.dtype) -> None:
        """Cast, in place, every convolution but those of the head `out`.

        Norms, embeddings and the head keep their precision. Activations follow. The constructor
        leaves this to its caller because checkpoints hold float32: weights are loaded first and
        cast afterwards.
        """
        cast_all_but_head(self, dtype)

    def use_kernels(self, kernels: str) -> tuple[str, str] | None:
        """Have convolutions on a CPU computed so (`models.layers.use_kernels`)."""
        is_wide = prefers_channels_last(torch.empty(0, 0, 0, 0), self.config.widths[0])
        chosen = use_kernels(self, kernels)
        return chosen if is_wide else None

    def explain_mismatch(self, shapes: Shapes) -> str:
        """Return which flags are wrong where a state_dict does not fit (`models.hints`).

        Args:
            shapes: name → shape, of the state_dict.
        """
        return explain_difference(shapes, shapes_of(self.state_dict()), self.config)

    def notices(self) -> list[str]:
        """Return what the flags ask for and the network cannot have, a line each."""
        config = self.config
        levels = [config.short_side >> level for level in range(len(config.channel_mult))]
        unreached = [side for side in config.attention_resolutions if side not in levels]
        if not unreached:
            return []
        return [
            f"notice: {config.flag('attention_resolutions')} {','.join(map(str, unreached))} adds "
            f"no attention: the levels have sides of {', '.join(map(str, levels))} pixels"
        ]

    def _make_res_block(
        self, channels: int, out_channels: int, resampling: Resampling = "none"
    ) -> ResBlock:
        return ResBlock(self.config, channels, out_channels, self.emb_channels, resampling)

    def _make_input_blocks(self) -> tuple[list[BlockSequential], list[int]]:
        """Return the blocks on the way down and the output width of each."""
        config, channels = self.config, self.config.widths[0]
        in_channels = self._num_entering
        blocks = [BlockSequential(conv_nd(config.dims, in_channels, channels, 3, padding=1))]
        widths = [channels]
        for level, width in enumerate(config.widths):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [self._make_res_block(channels, width)]
                channels = width
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, channels))
                blocks.append(BlockSequential(*layers))
                widths.append(channels)
            if level < len(config.widths) - 1:
                down = (
                    self._make_res_block(channels, channels, "down")
                    if config.resblock_updown
                    else Downsample(config.dims, channels, use_conv=config.conv_resample)
                )
                blocks.append(BlockSequential(down))
                widths.append(channels)
        return blocks, widths

    def _embed_time(self, batch_size: int, timesteps: Tensor) -> Tensor:
        """Return the embeddings (N, 4 * model_channels) of `timesteps` (N,)."""
        if timesteps.shape != (batch_size,):
            raise ValueError(
                f"timesteps of shape {tuple(timesteps.shape)}: give one per image, ({batch_size},)"
            )
        embedding = timestep_embedding(timesteps, self.config.model_channels)
        emb: Tensor = self.time_embed(embedding.to(dtype_of(self.time_embed)))
        return emb

    def _enter(self, x: Tensor) -> Tensor:
        """Return the checked input in the dtype of the input blocks."""
        self._check_input(x)
        x = x.to(dtype_of(self.input_blocks))
        if prefers_channels_last(x, self.config.widths[0]):
            # Layers keep the order of what they are given, and fast convolutions need this one.
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def _check_input(self, x: Tensor) -> None:
        config = self.config
        channels = self._num_entering
        if x.ndim != config.dims + 2 or x.shape[1] != channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: {type(self).__name__} takes batches with "
                f"{channels} channels and {config.dims} spatial axes"
            )
        resampled = x.shape[-min(config.dims, 2) :]
        if any(side % config.downsample_factor != 0 for side in resampled):
            raise ValueError(
                f"input of shape {tuple(x.shape)}: the {len(config.channel_mult)} levels need "
                f"sides divisible by {config.downsample_factor}: pad or crop the images"
            )


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the first parameter of a module."""
    return next(module.parameters()).dtype
