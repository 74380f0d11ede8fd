"""The noise-aware classifier: the first half of a U-Net that knows the timestep, and a head.

The network is that of Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4 and appendix I.

Names are the checkpoint format: those of `models.blocks`, then `out`, by pool:

- adaptive: `out.0` norm, `out.3` convolution;
- attention: `out.0` norm, `out.2.positional_embedding`, `out.2.qkv_proj`, `out.2.c_proj`;
- spatial: `out.0`, `out.2` linear; spatial_v2: `out.0` linear, `out.1` norm, `out.3` linear.

Do not renumber, reorder or rename them.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from models.blocks import Torso, dtype_of
from models.config import EncoderConfig
from models.layers import (
    GroupNorm32,
    SiLUInPlace,
    attention,
    conv_nd,
    global_avg_pool_nd,
    project_tokens,
    zero_module,
)

_HIDDEN_FEATURES = 2048


class AttentionPool(nn.Module):
    """Attention of the mean of all places to the places and itself, then a projection.

    With tokens x_0 = mean_i h_i, x_i = h_i and learned positions p, the vector is
    sum_j softmax_j(q_0·k_j / sqrt(D)) v_j per head, (q, k, v)_j = W (x_j + p_j): the attention pool
    of Radford et al. 2021 (arXiv 2103.00020), section 2.4. The rows of W read (q/k/v, head, D); the
    number of heads divides the channels.
    """

    def __init__(self, channels: int, num_places: int, num_heads: int, num_classes: int) -> None:
        """Create a pool of places of this many channels; the mean has a position as they have."""
        super().__init__()
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(
            torch.randn(channels, num_places + 1) / math.sqrt(channels)
        )
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, num_classes, 1)

    def pool(self, h: Tensor) -> Tensor:
        """Return the vectors (N, C) that the logits are a projection of, for h (N, C, *spatial)."""
        places = h.flatten(2).transpose(1, 2)  # (N, L, C)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)  # (N, L + 1, C)
        qkv = project_tokens(self.qkv_proj, tokens + self.positional_embedding.T)
        return attention(qkv, self.num_heads, use_new_order=True)[:, 0]  # (N, C)

    def forward(self, h: Tensor) -> Tensor:
        """Return logits (N, num_classes) for h (N, C, *spatial)."""
        return project_tokens(self.c_proj, self.pool(h))


class EncoderUNet(Torso):
    """The classifier p(y | x_t) of noisy images, for classifier guidance and feature distances.

    The head keeps the precision of its parameters whatever the torso computes in, so logits do not
    lose theirs to `convert_torso`.
    """

    is_time_conditioned = True

    def __init__(self, config: EncoderConfig) -> None:
        """Build the classifier; the constructor casts nothing (`convert_torso`)."""
        super().__init__(config.unet)
        self.encoder_config = config
        self.out = self._make_head()

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return the logits of noisy images.

        Args:
            x: (N, in_channels, H, W), the noisy image x_t.
            timesteps: (N,), integer or fractional, in units of the base process.

        Returns:
            (N, num_classes), in the dtype of the head's parameters.
        """
        logits: Tensor = self.out(self._encode(x, timesteps))
        return logits

    def features(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the last layer of `forward` maps, affinely, to the logits.

        For feature distances between images (as those of Heusel et al. 2017, arXiv 1706.08500),
        of noisy images if wanted. Arguments as `forward`.

        Returns:
            (N, F), in the dtype of the head's parameters: F is the width of the bottleneck for the
            pools adaptive and attention, 2048 for the spatial ones.
        """
        h = self._encode(x, timesteps)
        if self.encoder_config.pool == "attention":
            pool = self.out[2]
            assert isinstance(pool, AttentionPool)
            return pool.pool(self.out[:2](h))
        num_last = 2 if self.encoder_config.pool == "adaptive" else 1  # a layer and its flattening
        pooled: Tensor = self.out[:-num_last](h)
        return pooled.flatten(1)

    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of `features` (N, F), without another forward pass."""
        if self.encoder_config.pool == "attention":
            pool = self.out[2]
            assert isinstance(pool, AttentionPool)
            return project_tokens(pool.c_proj, features)
        if self.encoder_config.pool == "adaptive":
            features = features.reshape(*features.shape, *[1] * self.config.dims)
            return cast(Tensor, self.out[-2:](features))
        return cast(Tensor, self.out[-1](features))

    def _make_head(self) -> nn.Sequential:
        config, dims = self.encoder_config, self.config.dims
        bottom = self.config.widths[-1]
        if config.pool == "adaptive":
            return nn.Sequential(
                GroupNorm32(bottom),
                SiLUInPlace(),
                global_avg_pool_nd(dims),
                zero_module(conv_nd(dims, bottom, config.num_classes, 1)),
                nn.Flatten(),
            )
        if config.pool == "attention":
            num_heads = self.config.heads_for(bottom, is_upsampling=False)
            pool = AttentionPool(bottom, config.num_places, num_heads, config.num_classes)
            return nn.Sequential(GroupNorm32(bottom), SiLUInPlace(), pool)
        hidden: list[nn.Module] = [nn.ReLU()]
        if config.pool == "spatial_v2":
            hidden = [GroupNorm32(_HIDDEN_FEATURES), SiLUInPlace()]
        return nn.Sequential(
            nn.Linear(sum(self.input_widths) + bottom, _HIDDEN_FEATURES),
            *hidden,
            nn.Linear(_HIDDEN_FEATURES, config.num_classes),
        )

    def _encode(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the head takes, in its dtype.

        That is the bottleneck (N, C, *spatial), or for the spatial pools the means of every block,
        one behind the other (N, sum of widths).
        """
        dtype, is_spatial = dtype_of(self.out), self.encoder_config.is_spatial
        h = self._enter(x)
        emb = self._embed_time(x.shape[0], timesteps)
        means: list[Tensor] = []
        for block in (*self.input_blocks, self.middle_block):
            h = block(h, emb)
            if is_spatial:
                means.append(h.to(dtype).flatten(2).mean(dim=2))  # (N, width)
        return torch.cat(means, dim=1) if is_spatial else h.to(dtype)

    def _check_input(self, x: Tensor) -> None:
        super()._check_input(x)
        sides = self.config.image_sides[: self.config.dims]
        if self.encoder_config.pool == "attention" and tuple(x.shape[2:]) != sides:
            pool = self.config.flag("pool")
            raise ValueError(
                f"input of shape {tuple(x.shape)}: {pool} attention knows the places of images of "
                f"--image_size {self.config.size_text} only: resize the images, or choose {pool} "
                "adaptive"
            )
