"""A plain eager U-Net that loads the state_dict of the project's by name.

Contiguous tensors, attention as einsum and softmax, group norms on a float32 copy, SiLU as
x * sigmoid(x); two spatial axes, no dropout, nothing recomputed. The architecture is that of
Dhariwal & Nichol 2021 (arXiv 2105.05233), section 3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import UNetConfig


class PlainNorm(nn.Module):
    """Group norm in float32, whatever comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_groups = math.gcd(32, channels)
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape and dtype."""
        normed = F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float())
        return normed.to(x.dtype)


class PlainSiLU(nn.Module):
    """x * sigmoid(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(x)


class PlainResample(nn.Module):
    """Twice or half the resolution; a convolution named `conv` (up) or `op` (down) if learned."""

    def __init__(self, channels: int, kind: str, *, has_conv: bool) -> None:
        super().__init__()
        self.kind, self.has_conv = kind, has_conv
        if has_conv and kind == "up":
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        elif has_conv:
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W) or (N, C, H/2, W/2)."""
        if self.kind == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            return self.conv(x) if self.has_conv else x
        return self.op(x) if self.has_conv else F.avg_pool2d(x, 2)


class PlainResBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the embedding in between; the input added."""

    def __init__(
        self, config: UNetConfig, channels: int, out_channels: int, has_emb: bool, kind: str = ""
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            PlainNorm(channels), PlainSiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.resample = PlainResample(channels, kind, has_conv=False) if kind else None
        self.has_scale = config.use_scale_shift_norm
        if has_emb:
            width = 2 * out_channels if self.has_scale else out_channels
            self.emb_layers = nn.Sequential(
                PlainSiLU(), nn.Linear(4 * config.model_channels, width)
            )
        self.out_layers = nn.Sequential(
            PlainNorm(out_channels),
            PlainSiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if channels != out_channels:
            self.skip_connection = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """(N, channels, H, W) to (N, out_channels, H', W')."""
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        if emb is None:
            return self.skip_connection(x) + self.out_layers(h)
        out = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        if not self.has_scale:
            return self.skip_connection(x) + self.out_layers(h + out)
        scale, shift = torch.chunk(out, 2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class PlainAttention(nn.Module):
    """softmax(q k / √D) v over all pixels, every head in a matrix of its own."""

    def __init__(self, config: UNetConfig, channels: int, *, is_upsampling: bool = False) -> None:
        super().__init__()
        self.is_new_order = config.use_new_attention_order
        self.num_heads = config.heads_for(channels, is_upsampling=is_upsampling)
        self.norm = PlainNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, height * width)
        qkv = self.qkv(self.norm(flat))  # (N, 3C, L)
        heads, depth = self.num_heads, channels // self.num_heads
        if self.is_new_order:
            qkv = qkv.reshape(batch, 3, heads, depth, -1).transpose(1, 2)
        qkv = qkv.reshape(batch * heads, 3 * depth, -1)
        query, key, value = qkv.split(depth, dim=1)  # each (N * heads, D, L)
        scale = depth**-0.25
        weight = torch.einsum("bdl,bdm->blm", query * scale, key * scale)
        weight = torch.softmax(weight.float(), dim=-1).to(weight.dtype)
        mixed = torch.einsum("blm,bdm->bdl", weight, value).reshape(batch, channels, -1)
        return (flat + self.proj_out(mixed)).reshape(x.shape)


class PlainBlock(nn.Sequential):
    """Layers one after the other; residual blocks also get the embedding."""

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) to what the last layer makes of it."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, PlainResBlock) else layer(x)
        return x


class PlainUNet(nn.Module):
    """The four uses of the U-Net in one class: what it is given says which.

    Args:
        config: of the network to compare with.
        in_channels: of everything that enters side by side.
        is_timed: whether there is an embedding of the timestep (and of the class).

    Raises:
        ValueError: for a configuration that is not written here.
    """

    def __init__(self, config: UNetConfig, in_channels: int, *, is_timed: bool) -> None:
        super().__init__()
        if config.dims != 2 or config.dropout or config.last_layer_type != "none":
            raise ValueError("the plain U-Net has two axes, no dropout and no last layer")
        self.config, self.is_timed = config, is_timed
        if is_timed:
            width, emb_width = config.model_channels, 4 * config.model_channels
            self.time_embed = nn.Sequential(
                nn.Linear(width, emb_width), PlainSiLU(), nn.Linear(emb_width, emb_width)
            )
            if config.num_classes is not None:
                self.label_emb = nn.Embedding(config.num_classes, emb_width)
        self._build_down(in_channels)
        bottom = config.widths[-1]
        self.middle_block = PlainBlock(
            PlainResBlock(config, bottom, bottom, is_timed),
            PlainAttention(config, bottom),
            PlainResBlock(config, bottom, bottom, is_timed),
        )
        self._build_up()
        top = config.widths[0]
        self.out = nn.Sequential(
            PlainNorm(top), PlainSiLU(), nn.Conv2d(top, config.out_channels, 3, padding=1)
        )

    def _build_down(self, in_channels: int) -> None:
        config, channels = self.config, self.config.widths[0]
        self.input_blocks = nn.ModuleList(
            [PlainBlock(nn.Conv2d(in_channels, channels, 3, padding=1))]
        )
        self.skip_widths = [channels]
        for level, width in enumerate(config.widths):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [PlainResBlock(config, channels, width, self.is_timed)]
                channels = width
                if 2**level in config.attention_factors:
                    layers.append(PlainAttention(config, channels))
                self.input_blocks.append(PlainBlock(*layers))
                self.skip_widths.append(channels)
            if level + 1 < len(config.widths):
                self.input_blocks.append(PlainBlock(self._resampling(channels, "down")))
                self.skip_widths.append(channels)

    def _build_up(self) -> None:
        config, channels = self.config, self.config.widths[-1]
        self.output_blocks = nn.ModuleList()
        skip_widths = list(self.skip_widths)
        for level in range(len(config.widths) - 1, -1, -1):
            width = config.widths[level]
            for i in range(config.num_res_blocks + 1):
                entering = channels + skip_widths.pop()
                layers: list[nn.Module] = [PlainResBlock(config, entering, width, self.is_timed)]
                channels = width
                if 2**level in config.attention_factors:
                    layers.append(PlainAttention(config, channels, is_upsampling=True))
                if level > 0 and i == config.num_res_blocks:
                    layers.append(self._resampling(channels, "up"))
                self.output_blocks.append(PlainBlock(*layers))

    def _resampling(self, channels: int, kind: str) -> nn.Module:
        if self.config.resblock_updown:
            return PlainResBlock(self.config, channels, channels, self.is_timed, kind)
        return PlainResample(channels, kind, has_conv=self.config.conv_resample)

    def cast(self, dtype: torch.dtype) -> PlainUNet:
        """Cast the convolutions between input and head, in place; the rest stays float32."""
        for part in (self.input_blocks, self.middle_block, self.output_blocks):
            for layer in part.modules():
                if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                    layer.to(dtype)
        return self

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        low_res: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """Return (N, out_channels, H, W) for `x` (N, C, H, W), timesteps (N,) and labels (N,)."""
        image = x
        if low_res is not None:
            image = F.interpolate(low_res, x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, image], dim=1)
        emb = None
        if timesteps is not None:
            emb = self.time_embed(sinusoids(timesteps, self.config.model_channels))
            if y is not None:
                emb = emb + self.label_emb(y)
        h = x.to(self.input_blocks[0][0].weight.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        out = self.out(h.to(x.dtype))
        if self.config.predict_residual:
            out = torch.cat([out[:, : image.shape[1]] + image, out[:, image.shape[1] :]], dim=1)
        return out


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of t at frequencies from 1 to 1/10000: (N,) to (N, width)."""
    half = width // 2
    powers = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * powers)[None]
    found = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(found, (0, 1)) if width % 2 else found


def plain_twin(model: nn.Module, *, is_copy: bool = False) -> PlainUNet:
    """The plain network of a project network's configuration and weights, in training mode or not.

    Args:
        model: in float32.
        is_copy: False shares the parameters' memory.
    """
    state = {name: value.detach() for name, value in model.state_dict().items()}
    if is_copy:
        state = {name: value.clone() for name, value in state.items()}
    with torch.device("meta"):
        in_channels = state["input_blocks.0.0.weight"].shape[1]
        twin = PlainUNet(model.config, in_channels, is_timed="time_embed.0.weight" in state)
    twin.load_state_dict(state, assign=True)
    return twin.requires_grad_(is_copy).train(model.training)
