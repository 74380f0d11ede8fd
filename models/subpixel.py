"""The sub-pixel network: mean net, variance net and denoiser that work at the low-res side.

A body of residual blocks (EDSR: Lim et al. 2017, arXiv 1707.02921), of 3×3 convolutions or of 1×1
ones (`--res_block`), and a convolution whose channels become the pixels of a block (Shi et al.
2016, arXiv 1609.05158). Borders are replicated and nothing is averaged over the image, so that an
output pixel depends on a window of the input alone and any size will do.

Attribute names and positions are the checkpoint format: `head`, `body.I.conv1/conv2`, `body_end`,
`out.0`, and `std.…` of the same in a denoiser; with classes `label_emb` and `body.I.label`. Do not
renumber, reorder or rename them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import POINTWISE, SubpixelConfig
from models.cpu.fused import convolve, is_fused, to_channels, to_pixels
from models.cpu.rules import prefers_channels_last
from models.hints import Shapes, explain_subpixel, shapes_of
from models.layers import (
    Conv1x1,
    Conv3x3,
    cast_all_but_head,
    check_labels,
    fill,
    in_channels_of,
    last_layer,
    project,
    repeat_blocks,
    require_labels,
    smooth_base,
    use_kernels,
    zero_module,
)

# std that the denoiser starts from for what the smooth base leaves, of images in [-1, 1]
_STD = 0.1
# above this noise, in units of _STD, the denoiser sees less and less of the noisy image
_MOST_NOISE = 3.0
# logarithm of the factor by which the std of a pixel may differ from _STD
_MOST_LOG_STD = 5.0
# residual blocks of the net that tells it
_STD_BLOCKS = 2
# logit of the weight of an image of full size in a new mean net
_START_OF_WEIGHT = -1.5
# masks vary more than images, and what the filled base does not tell of them is little
_MASK_SCALE = 0.1
# of pixels that a mask shows, in the unit of images in [-1, 1]: nothing is divided by 0
_LEAST_VARIANCE = 1e-8
# times the width of the body: that of a pointwise block inside
_WIDER = 4
# up to so many channels the smooth base is one convolution, each channel's products with the others
# being zeros
_MOST_CHANNELS = 4


class PlainResBlock(nn.Module):
    """x + conv(relu(conv(x))), without a norm: 3×3 convolutions with replicated borders, or 1×1.

    Those of 1×1 pixels are wider inside: what they add to a pixel depends on that pixel alone.
    With classes x + conv(relu((1 + scale)·conv(x) + shift)), (scale, shift) linear in the embedding
    of the label (Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer").
    """

    def __init__(self, config: SubpixelConfig) -> None:
        super().__init__()
        channels = config.model_channels
        is_pointwise = config.res_block == POINTWISE
        conv, inner = (_conv1x1, _WIDER * channels) if is_pointwise else (_conv3x3, channels)
        self.conv1, self.conv2 = conv(channels, inner), conv(inner, channels)
        if config.num_classes is not None:
            self.label = nn.Linear(channels, 2 * inner, bias=False)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Return (N, C, h, w) for `x` of the same shape; with classes `emb` is (N, C)."""
        if not is_fused(x, self.conv1.weight.dtype, self.conv1, self.conv2):
            output: Tensor = x + self.conv2(F.relu(self._scaled(self.conv1(x), emb)))
            return output
        if emb is None:
            return convolve(self.conv2, convolve(self.conv1, x, has_relu=True), plus=x)
        return convolve(self.conv2, self._scaled(convolve(self.conv1, x), emb).relu_(), plus=x)

    def _scaled(self, h: Tensor, emb: Tensor | None) -> Tensor:
        if emb is None:
            return h
        scale, shift = self.label(emb).to(h.dtype)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, h, 1 + scale)


@dataclass(frozen=True)
class _Whole:
    """An image z of full size beside the low-res one, as mean and variance nets see it.

    Attributes:
        low_res: (N, C, h, w).
        z: (N, C, f·h, f·w).
        mask: (N, 1, f·h, f·w), 0 where z is hidden; None: nowhere.
        base: b, the smooth base of the low-res image, in the shape of z.
        left: z − b; of a mask, that of z filled to the block means of the low-res image (`fill`).
    """

    low_res: Tensor
    z: Tensor
    mask: Tensor | None
    base: Tensor
    left: Tensor

    @classmethod
    def of(cls, x: Tensor, config: SubpixelConfig) -> _Whole:
        """That of X (N, in_channels + extra_channels, h, w)."""
        factor, channels = config.factor, config.in_channels
        area = factor**2
        low_res, end = x[:, :channels], channels * (1 + area)
        z = F.pixel_shuffle(x[:, channels:end], factor)
        base = _smooth_base(low_res, factor)
        if not config.masks_whole:
            return cls(low_res, z, None, base, z - base)
        mask = F.pixel_shuffle(x[:, end : end + area], factor)
        return cls(low_res, z, mask, base, fill(base, z, mask, low_res) - base)

    def shown(self, x: Tensor) -> Tensor:
        """X as the body sees it: `left` in the place of z, and a quieter mask."""
        factor = self.z.shape[-1] // x.shape[-1]
        parts = [self.low_res, F.pixel_unshuffle(self.left, factor)]
        if self.mask is not None:
            parts.append(_MASK_SCALE * F.pixel_unshuffle(self.mask, factor))
        return torch.cat([*parts, x[:, sum(part.shape[1] for part in parts) :]], dim=1)


class SubpixelBase(nn.Module):
    """The owner of every parameter; subclasses say what enters and what leaves it.

    A new net returns zero. Nothing is cast by the constructor: see `convert_torso`. The embedding
    of the labels is zero in a new net, too: with the weights of a net without classes it computes
    the same as that, for every label.
    """

    def __init__(self, config: SubpixelConfig, in_channels: int, num_images: int = 1) -> None:
        """Build the net; `in_channels` enter it at the low-res side, `num_images` leave it."""
        super().__init__()
        self.config = config
        width = config.model_channels
        out_channels = num_images * config.out_channels * config.factor**2
        self.head = _conv3x3(in_channels, width)
        self.body = nn.ModuleList(PlainResBlock(config) for _ in range(config.num_res_blocks))
        self.body_end = _conv3x3(width, width)
        self.out = nn.Sequential(zero_module(_conv3x3(width, out_channels)))
        if config.num_classes is not None:
            self.label_emb = zero_module(nn.Embedding(config.num_classes, width))

    def convert_torso(self, dtype: torch.dtype) -> None:
        """Cast, in place, every convolution but the last (see `models.blocks.Torso`)."""
        cast_all_but_head(self, dtype)

    def use_kernels(self, kernels: str) -> tuple[str, str] | None:
        """Have convolutions on a CPU computed so where it is not trained (`layers.use_kernels`)."""
        return use_kernels(self, kernels)

    def explain_mismatch(self, shapes: Shapes) -> str:
        """Return which flags are wrong where a state_dict does not fit (`models.hints`).

        Args:
            shapes: name → shape, of the state_dict.
        """
        return explain_subpixel(shapes, shapes_of(self.state_dict()), self.config.factor)

    @property
    def reach(self) -> int:
        """Low-res pixels in each direction that an output pixel depends on."""
        is_pointwise = self.config.res_block == POINTWISE
        # and one more where the smooth base enters the body
        of_blocks = 0 if is_pointwise else 2 * self.config.num_res_blocks
        return 3 + of_blocks + self.config.shows_whole

    def is_neutral_when_new(self, name: str) -> bool:
        """Whether a net of a file without this parameter computes the same with a new one."""
        return name == "label_emb.weight" or name.endswith(".label.weight")

    def _run(self, x: Tensor, y: Tensor | None = None, base_of: Tensor | None = None) -> Tensor:
        """Return (N, out_channels, f·h, f·w), in the dtype of `x`, for `x` (N, C, h, w).

        Args:
            y: labels (N,), None exactly for a net without classes.
            base_of: an image (N, out_channels, h, w) whose smooth base is added; with
                `consistent` the block means are this image then.
        """
        emb = self._embed(x.shape[0], y)
        h = x.to(self.head.weight.dtype)
        layers = (self.head, self.body_end, self.out, *self.out)
        if is_fused(h, h.dtype, *layers) and x.dtype == self.out[0].weight.dtype == torch.float32:
            return self._run_fused(h, emb, base_of)
        if prefers_channels_last(h):
            h = h.contiguous(memory_format=torch.channels_last)
        h = start = self.head(h)
        for block in self.body:
            h = block(h, emb)
        pixels = self.out((start + self.body_end(h)).to(self.out[0].weight.dtype))
        output = F.pixel_shuffle(pixels.to(x.dtype), self.config.factor)
        if base_of is None:
            return output
        output = smooth_base(base_of, self.config.factor) + output
        return project(output, base_of) if self.config.consistent else output

    def _run_fused(self, h: Tensor, emb: Tensor | None, base_of: Tensor | None) -> Tensor:
        """`_run` of a net that is not trained, on a CPU.

        Base and projection are linear, and of a block's pixels as the last layer is: so they are
        computed with it, at the low-res side. Of the base the block means are `base_of` already.
        """
        factor = self.config.factor
        is_projected = base_of is not None and self.config.consistent
        base = None if base_of is None else _smooth_base_channels(base_of, factor)
        h = start = convolve(self.head, h)
        for block in self.body:
            h = block(h, emb)
        h = convolve(self.body_end, h, plus=start).to(torch.float32)
        last: nn.Conv2d = self.out[0]  # type: ignore[assignment]
        pixels = convolve(last, h, plus=base, block=factor**2 if is_projected else 0)
        return to_pixels(pixels, factor)

    def _embed(self, batch_size: int, y: Tensor | None) -> Tensor | None:
        require_labels(y, self.config.num_classes, batch_size)
        if y is None:
            return None
        check_labels(y, self.config.num_classes)
        emb: Tensor = self.label_emb(y)
        return emb


class SubpixelModel(SubpixelBase):
    """The mean net: the smooth base of the low-res image (`smooth_base`), and what the body adds.

    With other output than input channels, as a baseline has, the base is left to the caller. That
    of an image of other channels than the one that is estimated is of their mean.

    Where an image z of full size is shown, too (`shows_whole`), the body sees z − b, and also says
    how much each of its pixels counts: b + w·(z − b) + F, w in (0, 1), in the place of b + F. So
    the mean follows z pixel by pixel, which has more values than the body has channels. Where z
    shows some pixels as they are (`masks_whole`), the mean keeps them, and only what is hidden is
    b + F; consistent, it is filled (`models.layers.fill`).
    """

    def __init__(self, config: SubpixelConfig) -> None:
        super().__init__(config, config.x_channels, 2 if config.weighs_whole else 1)

    def forward(
        self, x: Tensor, size: tuple[int, int] | None = None, y: Tensor | None = None
    ) -> Tensor:
        """Return (N, out_channels, f·h, f·w).

        Args:
            x: (N, x_channels, h, w), the low-res image in [-1, 1] first.
            size: what is expected, as networks of other kinds need to be told.
            y: (N,) labels in [0, num_classes); None exactly for a net without classes.

        Raises:
            ValueError: `size` is another one; or labels are missing, or not in range.
        """
        factor = self.config.factor
        if size is not None and list(size) != [factor * side for side in x.shape[2:]]:
            raise ValueError(
                f"a sub-pixel net of factor {factor} makes {tuple(x.shape[2:])} pixels "
                f"{factor} times as large, not {tuple(size)}: give it the low-res image"
            )
        config = self.config
        whole = _Whole.of(x, config) if config.shows_whole else None
        if config.out_channels != config.in_channels:
            return self._run(x if whole is None else whole.shown(x), y)
        if whole is not None:
            return self._mean_given(whole, self._run(whole.shown(x), y))
        image = in_channels_of(x[:, : config.shown_channels], config.in_channels)
        return self._run(x, y, image)

    def _mean_given(self, whole: _Whole, output: Tensor) -> Tensor:
        if whole.mask is not None:
            output = whole.base + output
            if self.config.consistent:
                return fill(output, whole.z, whole.mask, whole.low_res)
            return torch.where(whole.mask == 1, whole.z, output)
        output, logit = output.chunk(2, dim=1)
        weight = torch.sigmoid(logit + _START_OF_WEIGHT)
        output = torch.lerp(whole.base, whole.z, weight) + output
        return project(output, whole.low_res) if self.config.consistent else output


class SubpixelVarianceModel(SubpixelBase):
    """The variance net: it sees the low-res image, and the pixels of the mean as channels.

    An image of full size is shown to it as to the mean net. Pixels that a mask shows
    (`masks_whole`) have no variance; so they get next to none where the net `is_of_pixels`.
    """

    def __init__(self, config: SubpixelConfig, *, is_of_pixels: bool = False) -> None:
        """Build the net; `is_of_pixels`: its variances are not those of other functionals."""
        super().__init__(config, config.x_channels + config.in_channels * config.factor**2)
        self._is_of_pixels = is_of_pixels

    def forward(self, x: Tensor, mean: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return variances (N, out_channels, f·h, f·w), in the squared unit of the images.

        Args:
            x: (N, x_channels, h, w), the low-res image in [-1, 1] first; at a
                factor of 1 it may have the mean beside it, as its last channels.
            mean: (N, in_channels, f·h, f·w), the predicted mean.
            y: as for `SubpixelModel`.
        """
        factor, channels = self.config.factor, self.config.in_channels
        if mean is None:
            x, mean = x[:, :-channels], x[:, -channels:]
        whole = _Whole.of(x, self.config) if self.config.shows_whole else None
        if whole is None:
            shown = in_channels_of(x[:, : self.config.shown_channels], channels)
            base = repeat_blocks(shown, factor)
        else:
            x, base = whole.shown(x), whole.base
        output = self._run(_beside([x], mean.to(x.dtype) - base, factor), y)
        variance = last_layer(output, self.config.last_layer_type)
        if whole is None or whole.mask is None or not self._is_of_pixels:
            return variance
        return torch.where(whole.mask == 1, _LEAST_VARIANCE, variance)


class SubpixelDenoiser(SubpixelBase):
    """The denoiser of the diffusion model given a low-res image; it predicts x_start.

    With z = x_t / √alpha_bar = x_start + σ·noise, the smooth base b and r = z − b, it returns
    the projection (`models.layers.project`) of

        b + s²/(σ² + s²)·r + σ·s/√(σ² + s²)·F,        s = 0.1·exp(L)

    EDM's preconditioning (Karras et al. 2022, arXiv 2206.00364, equation 7) of what the base
    leaves, with a std s of each pixel, since an edge leaves more than a sky (docs/theory.md, eq.
    53). F is what the body makes of low-res image, noisy image and noise level, and L what a
    smaller net, `std`, makes of the low-res image alone. A new net has F = 0, L = 0: the Wiener
    filter of std 0.1.
    """

    _sigmas: Tensor

    def __init__(self, config: SubpixelConfig, sigmas: Sequence[float]) -> None:
        """Build the net of a chain whose noise is σ_t = √(1/alpha_bar_t − 1), (T,), at each t."""
        seen = config.x_channels
        super().__init__(config, seen + config.in_channels * config.factor**2 + 4)
        width = max(config.model_channels // 2, 1)
        smaller = replace(config, model_channels=width, num_res_blocks=_STD_BLOCKS)
        self.std = SubpixelBase(smaller, seen)
        self.register_buffer("_sigmas", torch.tensor(sigmas), persistent=False)

    def forward(
        self, x: Tensor, timesteps: Tensor, low_res: Tensor, std: Tensor | None = None
    ) -> Tensor:
        """Return the predicted x_start, (N, C, f·h, f·w), in the dtype of `x`.

        Args:
            x: (N, C, f·h, f·w), the noisy image x_t.
            timesteps: (N,), whole ones of the chain that the net was made for.
            low_res: (N, x_channels, h, w), the low-res image in [-1, 1] first.
            std: s of `condition`, (N, C, f·h, f·w); None: computed.

        Raises:
            TypeError: for timesteps that are not whole.
            ValueError: the sizes of `x` and `low_res` do not fit the factor.
        """
        factor = self.config.factor
        if timesteps.is_floating_point():
            raise TypeError("a sub-pixel denoiser knows whole timesteps: no rescale_timesteps")
        if list(x.shape[2:]) != [factor * side for side in low_res.shape[2:]]:
            raise ValueError(
                f"x of {tuple(x.shape[2:])} pixels is not {factor} times as large as low_res of "
                f"{tuple(low_res.shape[2:])}"
            )
        low_res = low_res.to(x.dtype)
        sigma = self._sigmas[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        image = in_channels_of(low_res[:, : self.config.shown_channels], self.config.in_channels)
        base = _smooth_base(image, factor)
        left = x * (1.0 + sigma**2).sqrt() - base  # r
        shown = left / (sigma**2 + _STD**2).sqrt()
        shown = shown / (1.0 + (sigma / (_MOST_NOISE * _STD)) ** 2).sqrt()
        planes = _noise_features(sigma).expand(-1, -1, *low_res.shape[2:])
        change = self._run(_beside([low_res, planes], shown, factor))
        std = self._std_of(low_res) if std is None else std
        both = (sigma**2 + std**2).sqrt()
        output = base + (std / both) ** 2 * left + sigma * std / both * change
        return project(output, image) if self.config.has_block_means else output

    def condition(
        self, low_res: Tensor, size: Sequence[int], y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute once what every step of a sampling loop would compute again.

        As `SuperResModel.condition`; here `low_res`, and `std`, the s that follows from it.

        Args:
            low_res: as for `forward`.
            size: spatial shape of the images to be sampled.
            y: none, since these nets have no classes.

        Raises:
            ValueError: `y` is not None.
        """
        if y is not None:
            raise ValueError("a sub-pixel denoiser has no classes: leave y out")
        return {"low_res": low_res, "std": self._std_of(low_res)}

    def _std_of(self, low_res: Tensor) -> Tensor:
        log_std = self.std._run(low_res)
        return _STD * (_MOST_LOG_STD * torch.tanh(log_std / _MOST_LOG_STD)).exp()


def _noise_features(sigma: Tensor) -> Tensor:
    """Cosine and sine of θ and 2θ, tan θ = σ/0.1: (N, 1, 1, 1) to (N, 4, 1, 1), in [-1, 1]."""
    angle = torch.atan(sigma / _STD)
    return torch.cat([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], dim=1)


def noise_of(alphas_cumprod: Sequence[float]) -> list[float]:
    """Return σ_t = √(1/alpha_bar_t − 1), the noise of x_t / √alpha_bar_t; (T,) to (T,).

    In float64, where 1 − alpha_bar_t of the first timesteps still has all its digits.
    """
    return [math.sqrt((1.0 - share) / share) for share in alphas_cumprod]


def _beside(low_res: Sequence[Tensor], image: Tensor, factor: int) -> Tensor:
    """Return tensors (N, C, h, w) and the blocks of an image (N, C, f·h, f·w) as one tensor."""
    if not is_fused(image, image.dtype):
        return torch.cat([*low_res, F.pixel_unshuffle(image, factor)], dim=1)
    last = [one.contiguous(memory_format=torch.channels_last) for one in low_res]
    return torch.cat([*last, to_channels(image, factor)], dim=1)


def _smooth_base(low_res: Tensor, factor: int) -> Tensor:
    """As `models.layers.smooth_base`."""
    is_narrow = low_res.shape[1] <= _MOST_CHANNELS and low_res.dtype == torch.float32
    if not (is_narrow and is_fused(low_res, low_res.dtype)):
        return smooth_base(low_res, factor)
    return to_pixels(_smooth_base_channels(low_res, factor), factor)


def _smooth_base_channels(low_res: Tensor, factor: int) -> Tensor:
    """The smooth base of (N, C, h, w) with the pixels of a block as channels: (N, C·f·f, h, w)."""
    if low_res.shape[1] > _MOST_CHANNELS:
        return F.pixel_unshuffle(smooth_base(low_res, factor), factor)
    return convolve(_base_layer(low_res.shape[1], factor), low_res)


@lru_cache
def _base_layer(channels: int, factor: int) -> nn.Conv2d:
    """The smooth base as a convolution: a block follows from the 3×3 low-res pixels around it."""
    nearby = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)
    block = smooth_base(nearby, factor)[..., factor : 2 * factor, factor : 2 * factor]
    weight = block.reshape(9, factor**2).T.contiguous()
    weight = torch.kron(torch.eye(channels, dtype=torch.float64), weight)
    layer = nn.Conv2d(channels, len(weight), 3, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.view(-1, channels, 3, 3).float(), requires_grad=False)
    return layer


class ReplicatedConv3x3(Conv3x3):
    """A convolution of 3×3 pixels with replicated borders and stride 1."""

    def forward(self, input: Tensor) -> Tensor:
        """As `Conv3x3`, by torch's sums: `models.cpu.fused` has the others."""
        return nn.Conv2d.forward(self, input)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return ReplicatedConv3x3(in_channels, out_channels, 3, padding=1, padding_mode="replicate")


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return Conv1x1(in_channels, out_channels, 1)
