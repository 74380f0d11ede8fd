"""The way down of a U-Net and its bottleneck: what denoisers and the classifier share.

Not the place for the way up and what leaves a U-Net (`models.unet`), for the head of a classifier
(`models.encoder`), nor for layers (`models.blocks`).

Attribute names and positions are the checkpoint format: `time_embed.0/.2`, `label_emb`,
`input_blocks.I.J`, `middle_block.J`, in this order, with the names of `models.blocks` below them.
Do not renumber, reorder or rename them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.blocks import AttentionBlock, BlockSequential, Downsample, Resampling, ResBlock
from models.config import UNetConfig
from models.cpu.winograd import prefers_channels_last
from models.hints import explain_difference
from models.layers import cast_convolutions, conv_nd, timestep_embedding
from models.structure import Shapes

# Narrower networks gain little from fast convolutions, and their other layers would lose more.
_MIN_WIDTH_CHANNELS_LAST = 64


class Torso(nn.Module):
    """The owner of the embedding, the input blocks and the bottleneck; it has no `forward`.

    Nothing is cast by the constructor: see `convert_to_compute_dtype`.
    """

    num_input_images: ClassVar[int] = 1
    is_time_conditioned: ClassVar[bool] = False

    def __init__(self, config: UNetConfig) -> None:
        """Build the parts; subclasses add theirs behind them.

        Args:
            config: everything but what only the way up reads.
        """
        super().__init__()
        self.config = config
        self.emb_channels = config.time_embed_dim if self.is_time_conditioned else None
        if self.emb_channels is not None:
            self.time_embed = nn.Sequential(
                nn.Linear(config.model_channels, self.emb_channels),
                nn.SiLU(),
                nn.Linear(self.emb_channels, self.emb_channels),
            )
            if config.num_classes is not None:
                self.label_emb = nn.Embedding(config.num_classes, self.emb_channels)
        input_blocks, self.input_widths = self._make_input_blocks()
        self.input_blocks = nn.ModuleList(input_blocks)
        bottom = config.widths[-1]
        self.middle_block = BlockSequential(
            self._make_res_block(bottom, bottom),
            AttentionBlock(config, bottom),
            self._make_res_block(bottom, bottom),
        )

    def convert_torso(self, dtype: torch.dtype) -> None:
        """Cast, in place, the convolutions of the input and middle blocks.

        Norms and embeddings keep their precision. Activations follow.
        """
        for part in (self.input_blocks, self.middle_block):
            cast_convolutions(part, dtype)

    def convert_to_compute_dtype(self) -> None:
        """Apply `use_fp16` or `use_bf16` of the config, in place.

        The constructor leaves this to its caller because checkpoints hold float32: weights are
        loaded first and cast afterwards.
        """
        if self.config.use_fp16:
            self.convert_torso(torch.float16)
        elif self.config.use_bf16:
            self.convert_torso(torch.bfloat16)

    def explain_mismatch(self, shapes: Shapes) -> str:
        """Return which flags are wrong where a state_dict does not fit (`models.hints`).

        Args:
            shapes: name → shape, of the state_dict.
        """
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        return explain_difference(shapes, own, self.config)

    def notices(self) -> list[str]:
        """Return what the flags ask for and the network cannot have, a line each."""
        config = self.config
        levels = [config.image_size >> level for level in range(len(config.channel_mult))]
        unreached = [side for side in config.attention_resolutions if side not in levels]
        if not unreached:
            return []
        return [
            f"notice: --attention_resolutions {','.join(map(str, unreached))} adds no attention: "
            f"the levels have sides of {', '.join(map(str, levels))} pixels"
        ]

    def _make_res_block(
        self, channels: int, out_channels: int, resampling: Resampling = "none"
    ) -> ResBlock:
        return ResBlock(self.config, channels, out_channels, self.emb_channels, resampling)

    def _make_input_blocks(self) -> tuple[list[BlockSequential], list[int]]:
        """Return the blocks on the way down and the output width of each."""
        config, channels = self.config, self.config.widths[0]
        in_channels = self.num_input_images * config.in_channels
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
        is_wide = self.config.dims == 2 and self.config.widths[0] >= _MIN_WIDTH_CHANNELS_LAST
        if is_wide and prefers_channels_last(x):
            # Layers keep the order of what they are given, and fast convolutions need this one.
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def _check_input(self, x: Tensor) -> None:
        config = self.config
        channels = self.num_input_images * config.in_channels
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
