"""Hyper-parameters of the networks for images, the smallest one apart: defaults and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

# what follows each norm of a U-Net, and lies inside its embeddings
ACTIVATIONS = ("silu", "gelu", "relu", "relu6", "lrelu")
LAST_LAYER_TYPES = ("none", "exp", "sigmoid", "softplus")

# far beyond any network that was trained; what lies above would keep torch busy until memory ends
_MOST_RES_BLOCKS = 1000
_MOST_CHANNELS = 2**20
_MOST_PARAMETERS = 10**11

_REGRESSION_CHANNEL_MULT = MappingProxyType(
    {
        512: (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0),
        256: (1.0, 1.0, 2.0, 2.0, 4.0, 4.0),
    }
)
_DIFFUSION_CHANNEL_MULT = MappingProxyType(
    {
        512: (1.0, 1.0, 2.0, 2.0, 4.0, 4.0),
        256: (1.0, 1.0, 2.0, 2.0, 4.0, 4.0),
        128: (1.0, 1.0, 2.0, 3.0, 4.0),
        64: (1.0, 2.0, 3.0, 4.0),
    }
)


class _GivenImage:
    """Of both kinds of networks: what is given to one that is not given the image's own kind."""

    in_channels: int
    image_channels: int
    extra_channels: int

    @property
    def shown_channels(self) -> int:
        """Of the image that is given."""
        return self.image_channels or self.in_channels

    @property
    def x_channels(self) -> int:
        """Of all that is given."""
        return self.shown_channels + self.extra_channels


@dataclass(frozen=True, kw_only=True)
class UNetConfig(_GivenImage):
    """Everything that determines a U-Net's parameters and its arithmetic.

    Field names are the command-line flags. The networks of `models.unet` double `in_channels`
    themselves where they take two images, so it is always the channel count of one image.

    Attributes:
        image_size: side of the square the net is built for, pixels; or (height, width) of images
            that are none. What goes by one side, as attention, goes by the shorter one.
        channel_mult: width of each level as a multiple of `model_channels`; the product is
            truncated to an integer. Each level after the first halves the resolution.
        in_channels: channels of one input image.
        model_channels: base width.
        out_channels: channels of the output.
        num_res_blocks: residual blocks per level on the way down (one more on the way up).
        attention_resolutions: sides, in pixels: attention follows each residual block of the level
            whose shorter side is listed. A side that no level has is allowed and adds nothing; the
            bottleneck always attends.
        dropout: probability in [0, 1).
        conv_resample: learned convolutions in the resampling layers; otherwise average pooling
            down and bare nearest-neighbour up. Without effect if `resblock_updown`.
        dims: 1, 2 or 3 spatial axes; with 3 the first of them is never resampled.
        num_classes: number of class labels, or None for a net without class condition.
        use_checkpoint: recompute activations in the backward pass to save memory.
        use_fp16: as flags and checkpoints have it; the arithmetic is that of the parameters, which
            `convert_torso` casts.
        use_bf16: the same.
        num_heads: attention heads; `num_head_channels` takes precedence where it is set.
        num_head_channels: channels per head, or -1 to fix `num_heads` instead.
        num_heads_upsample: heads on the way up, or -1 for `num_heads`; like `num_heads`, it
            yields to `num_head_channels`.
        use_scale_shift_norm: the embedding scales and shifts the second normalisation of a
            residual block instead of being added before it.
        resblock_updown: resample inside residual blocks.
        use_new_attention_order: split queries, keys and values before heads.
        act: the activation, one of `ACTIVATIONS`; see `models.layers.activation`.
        predict_residual: the output is added to the (upsampled) input image.
        consistent: the output is projected so that its block means are the low-res image.
        last_layer_type: map applied to the variance net's output.
        extra_channels: channels that follow those of the image it is given, as masks or levels.
        image_channels: channels of that image, where they are others than `in_channels`, those of
            the image that is estimated; else 0.

    Raises:
        ValueError: a field is out of range, or fields contradict each other.
    """

    # what messages call a field whose flag has another name; subclasses have their own
    flag_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"model_channels": "--model_channels (--num_channels)"}
    )

    image_size: int | tuple[int, int]
    channel_mult: tuple[float, ...]
    in_channels: int = 3
    model_channels: int = 128
    out_channels: int = 3
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16, 8)
    dropout: float = 0.0
    conv_resample: bool = True
    dims: int = 2
    num_classes: int | None = None
    use_checkpoint: bool = False
    use_fp16: bool = False
    use_bf16: bool = False
    num_heads: int = 4
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    act: str = "silu"
    predict_residual: bool = False
    consistent: bool = False
    last_layer_type: str = "none"
    extra_channels: int = 0
    image_channels: int = 0

    def __post_init__(self) -> None:
        """Validate every field."""
        for name in ("channel_mult", "attention_resolutions"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                raise ValueError(f"{name}={value!r}: give a tuple, as parse_{name} makes of a text")
        self._check_ranges()
        self._check_resolutions()
        self._check_size()
        self._check_heads()

    @classmethod
    def flag(cls, field: str) -> str:
        """Return the flag that sets a field, as messages name it."""
        return cls.flag_names.get(field, f"--{field}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(int(mult * self.model_channels) for mult in self.channel_mult)

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the images the net is built for, pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def short_side(self) -> int:
        """The shorter one of `image_sides`."""
        return min(self.image_sides)

    @property
    def is_square(self) -> bool:
        """Whether both sides are as long."""
        return len(set(self.image_sides)) == 1

    @property
    def size_text(self) -> str:
        """The image size as its flag has it: a side, or `HEIGHTxWIDTH`."""
        return "x".join(map(str, self.image_sides[: 1 if self.is_square else 2]))

    @property
    def downsample_factor(self) -> int:
        """Ratio of the finest to the coarsest resolution, a power of two."""
        return 1 << (len(self.channel_mult) - 1)

    @property
    def attention_factors(self) -> frozenset[int]:
        """Downsampling factors at which attention follows each residual block."""
        return frozenset(self.short_side // side for side in self.attention_resolutions)

    @property
    def time_embed_dim(self) -> int:
        """Length of the embedding of time and class."""
        return 4 * self.model_channels

    def heads_for(self, channels: int, *, is_upsampling: bool) -> int:
        """Return the number of attention heads of a block; ValueError if they do not divide it."""
        if self.num_head_channels != -1:
            name, divisor = "num_head_channels", self.num_head_channels
        elif is_upsampling and self.num_heads_upsample != -1:
            name, divisor = "num_heads_upsample", self.num_heads_upsample
        else:
            name, divisor = "num_heads", self.num_heads
        if channels % divisor != 0:
            raise ValueError(
                f"{self.flag(name)} {divisor} does not divide the {channels} channels of an "
                f"attention block: choose a divisor of {channels}, or change "
                f"{self.flag('model_channels')} {self.model_channels}, or "
                f"{self.flag('channel_mult')}"
            )
        return channels // divisor if name == "num_head_channels" else divisor

    def _check_ranges(self) -> None:
        if self.short_side < 1:
            raise ValueError(f"{self.flag('image_size')} {self.size_text}: give a positive integer")
        if not isinstance(self.image_size, int) and self.dims == 1:
            raise ValueError(f"--dims 1 has one side: give one for image_size {self.image_size}")
        for name in ("in_channels", "out_channels", "model_channels"):
            self._check_positive(name)
        self._check_positive("num_res_blocks")
        if self.num_res_blocks > _MOST_RES_BLOCKS:
            raise ValueError(
                f"{self.flag('num_res_blocks')} {self.num_res_blocks}: give at most "
                f"{_MOST_RES_BLOCKS}"
            )
        self._check_positive("num_heads")
        for name in ("num_head_channels", "num_heads_upsample"):
            if getattr(self, name) != -1:
                self._check_positive(name, ", or leave it at -1")
        if self.num_classes is not None:
            self._check_positive("num_classes", ", or None for no class condition")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"--dropout {self.dropout}: give a probability in [0, 1)")
        if self.dims not in (1, 2, 3):
            raise ValueError(f"--dims {self.dims}: choose 1, 2 or 3")
        _check_choice("--act", self.act, ACTIVATIONS)
        _check_choice("--last_layer_type", self.last_layer_type, LAST_LAYER_TYPES)
        if self.use_fp16 and self.use_bf16:
            raise ValueError("--use_fp16 True and --use_bf16 True exclude each other: set only one")

    def _check_positive(self, field: str, alternative: str = "") -> None:
        value = getattr(self, field)
        if value < 1:
            raise ValueError(f"{self.flag(field)} {value}: give a positive integer{alternative}")

    def _check_resolutions(self) -> None:
        levels, width = self.flag("channel_mult"), self.flag("model_channels")
        if not self.channel_mult:
            raise ValueError(f"{levels} is empty: give one multiplier per level, as in 1,2,4")
        for mult in self.channel_mult:
            product = f"{levels} {mult:g} times {width} {self.model_channels}"
            if mult * self.model_channels < 1:
                raise ValueError(f"{product} leaves no channel: raise one of them")
            if mult * self.model_channels > _MOST_CHANNELS:
                raise ValueError(f"{product} is more than {_MOST_CHANNELS}: lower one of them")
        if any(side % self.downsample_factor for side in self.image_sides):
            raise ValueError(
                f"image size {self.size_text} is not divisible by {self.downsample_factor}, which "
                f"the {len(self.channel_mult)} levels of {levels} need: change the image size or "
                "give fewer multipliers"
            )
        for side in self.attention_resolutions:
            # a larger one is at no level, as some others; the network says so (`notices`)
            if side < 1 or (side <= self.short_side and self.short_side % side != 0):
                raise ValueError(
                    f"{self.flag('attention_resolutions')} {side} does not divide the image size "
                    f"{self.short_side}: give sides in pixels such as "
                    f"{self.short_side // self.downsample_factor}"
                )

    def _check_size(self) -> None:
        """Refuse what no machine could hold, before torch tries to."""
        num_in_blocks = sum(3**self.dims * width**2 for width in self.widths)
        num_in_classes = self.time_embed_dim * (self.num_classes or 0)
        about = 2 * (2 * self.num_res_blocks + 1) * num_in_blocks + num_in_classes
        if about > _MOST_PARAMETERS:
            raise ValueError(
                f"{self.flag('num_res_blocks')} {self.num_res_blocks}, "
                f"{self.flag('model_channels')} {self.model_channels}, "
                f"{self.flag('channel_mult')} and {self.num_classes or 0} classes make about "
                f"{about:.0e} parameters, more than {_MOST_PARAMETERS:.0e}: lower one of them"
            )

    def _check_heads(self) -> None:
        self.heads_for(self.widths[-1], is_upsampling=False)
        for level, width in enumerate(self.widths):
            if 2**level in self.attention_factors:
                self.heads_for(width, is_upsampling=False)
                self.heads_for(width, is_upsampling=True)


def parse_channel_mult(text: str, flag: str = "--channel_mult") -> tuple[float, ...]:
    """Parse the comma-separated multipliers of `flag`, fractions allowed.

    ValueError for an entry that is no positive finite number, or none.
    """
    remedy = f"{flag} {text!r}: give one positive number per level, as in 0.5,1,2"
    try:
        mults = tuple(float(entry) for entry in text.split(","))
    except ValueError:
        raise ValueError(remedy) from None
    if not all(math.isfinite(mult) and mult > 0 for mult in mults):
        raise ValueError(remedy)
    return mults


def parse_attention_resolutions(
    text: str, flag: str = "--attention_resolutions"
) -> tuple[int, ...]:
    """Parse the comma-separated sides, in pixels, of `flag`.

    Spaces around the commas are allowed; an empty text means the bottleneck only. ValueError for an
    entry that is no positive integer.
    """
    if not text.strip():
        return ()
    remedy = f"{flag} {text!r}: give positive integers, as in 32,16,8"
    try:
        sides = tuple(int(entry) for entry in text.split(","))
    except ValueError:
        raise ValueError(remedy) from None
    if min(sides) < 1:
        raise ValueError(remedy)
    return sides


def default_regression_channel_mult(large_size: int) -> tuple[float, ...]:
    """Return the multipliers of the mean and variance nets; ValueError where there are none."""
    return _look_up_channel_mult(_REGRESSION_CHANNEL_MULT, large_size, "--channel_mult")


def default_diffusion_channel_mult(
    large_size: int, flag: str = "--channel_mult"
) -> tuple[float, ...]:
    """Return the multipliers of the diffusion nets; ValueError where there are none."""
    return _look_up_channel_mult(_DIFFUSION_CHANNEL_MULT, large_size, flag)


def _look_up_channel_mult(
    table: Mapping[int, tuple[float, ...]], large_size: int, flag: str
) -> tuple[float, ...]:
    if large_size not in table:
        known = ", ".join(str(size) for size in table)
        raise ValueError(
            f"no default channel multipliers for size {large_size} (there are some for {known}): "
            f"pass {flag}, one multiplier per level and each level after the first halving the "
            f"resolution, for example {flag} 1,2,4"
        )
    return table[large_size]


# the convolutions of a sub-pixel net's residual block: two of 3×3 pixels, or two of 1×1
CONV3X3, POINTWISE = RES_BLOCKS = ("conv3x3", "pointwise")
POOLS = ("adaptive", "attention", "spatial", "spatial_v2")

# Fields of a U-Net that nothing in its first half reads.
_UNUSED_FIELDS = (
    "out_channels",
    "num_classes",
    "num_heads_upsample",
    "predict_residual",
    "consistent",
    "last_layer_type",
    "extra_channels",
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that determines a classifier's parameters and its arithmetic.

    Attributes:
        unet: the U-Net whose way down and bottleneck the classifier is. What only the rest of a
            U-Net reads must stay at its default, `num_classes` among it: the classifier is not
            told the class.
        num_classes: number of logits.
        pool: how the places of the bottleneck become one vector: `adaptive` averages them,
            `attention` lets their mean attend to them, `spatial` and `spatial_v2` join the means of
            every block on the way down with that of the bottleneck, and put a hidden layer behind
            them, with a rectifier or with a norm and SiLU.

    Raises:
        ValueError: a field is out of range, or fields contradict each other.
    """

    unet: UNetConfig
    num_classes: int
    pool: str = "attention"

    def __post_init__(self) -> None:
        """Validate every field."""
        if self.num_classes < 1:
            raise ValueError(f"--num_classes {self.num_classes}: give a positive integer")
        pool = self.unet.flag("pool")
        _check_choice(pool, self.pool, POOLS)
        if self.pool == "attention" and self.unet.dims == 3:
            raise ValueError(
                f"{pool} attention has a position for each place of an image, --dims 3 "
                f"leaves the length of the first axis open: choose {pool} adaptive"
            )
        defaults = {field.name: field.default for field in fields(UNetConfig)}
        for name in _UNUSED_FIELDS:
            value = getattr(self.unet, name)
            if value != defaults[name]:
                raise ValueError(
                    f"{self.unet.flag(name)} {value} of the U-Net means nothing in a "
                    f"classifier, which is its first half: leave it at {defaults[name]}"
                )

    @property
    def is_spatial(self) -> bool:
        """Whether the head sees every block on the way down, not the bottleneck alone."""
        return self.pool in ("spatial", "spatial_v2")

    @property
    def num_places(self) -> int:
        """Places of the bottleneck for images of `image_size` pixels."""
        sides = self.unet.image_sides[: self.unet.dims]
        return math.prod(side // self.unet.downsample_factor for side in sides)


@dataclass(frozen=True, kw_only=True)
class SubpixelConfig(_GivenImage):
    """Everything that determines the parameters and the arithmetic of a sub-pixel network.

    Attributes:
        factor: high-res pixels along the side of a low-res one.
        model_channels: width of the body.
        num_res_blocks: residual blocks of the body.
        in_channels: channels of one input image.
        out_channels: channels of the output.
        consistent: the mean is projected so that its block means are the low-res image.
        last_layer_type: map applied to the variance net's output.
        num_classes: number of class labels, or None for a net without class condition.
        extra_channels: channels that follow those of the image it is given, as masks or levels.
        image_channels: channels of that image, where they are others than `in_channels`, those of
            the image that is estimated; else 0.
        has_block_means: whether that image is the block means of the one that a denoiser predicts,
            which is then projected to have them.
        shows_whole: the first of these channels are an image z of the size of the output, each
            block of it as `in_channels · factor²` channels of a pixel; mean and variance nets see
            what it is above the smooth base, and a mean net weighs it.
        masks_whole: `factor²` channels behind it are its mask: where it is 1, z is the image
            itself, and where it is 0, z is hidden. A mean net keeps what is seen.
        res_block: the kind of the residual blocks, one of `RES_BLOCKS`.

    Raises:
        ValueError: a field is out of range, or fields contradict each other.
    """

    factor: int
    model_channels: int = 128
    num_res_blocks: int = 2
    in_channels: int = 3
    out_channels: int = 3
    consistent: bool = False
    last_layer_type: str = "none"
    num_classes: int | None = None
    extra_channels: int = 0
    image_channels: int = 0
    has_block_means: bool = True
    shows_whole: bool = False
    masks_whole: bool = False
    res_block: str = CONV3X3

    def __post_init__(self) -> None:
        """Validate every field."""
        counts = ("model_channels", "num_res_blocks", "in_channels", "out_channels")
        for name in (*counts, *(("num_classes",) if self.num_classes is not None else ())):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: give a positive integer")
        if self.factor < 1:
            raise ValueError(f"a factor of {self.factor} between the sizes: give 1 or more")
        wanted = (self.in_channels + self.masks_whole) * self.factor**2
        if self.shows_whole and self.extra_channels < wanted:
            raise ValueError(f"{self.extra_channels} further channels hold no image of full size")
        _check_choice("--res_block", self.res_block, RES_BLOCKS)
        _check_choice("--last_layer_type", self.last_layer_type, LAST_LAYER_TYPES)
        most = (self.model_channels, self.out_channels * self.factor**2)
        if max(most) > _MOST_CHANNELS or self.num_res_blocks > _MOST_RES_BLOCKS:
            raise ValueError(
                f"--model_channels {self.model_channels}, --num_res_blocks {self.num_res_blocks} "
                f"and a factor of {self.factor}: give at most {_MOST_CHANNELS} channels in a layer "
                f"and {_MOST_RES_BLOCKS} blocks"
            )
        in_classes = self.model_channels * (self.num_classes or 0)
        about = 18 * self.num_res_blocks * self.model_channels**2 + in_classes
        if about > _MOST_PARAMETERS:
            raise ValueError(
                f"--num_res_blocks {self.num_res_blocks} and --model_channels "
                f"{self.model_channels} and {self.num_classes or 0} classes make about {about:.0e} "
                f"parameters, more than {_MOST_PARAMETERS:.0e}: lower one of them"
            )

    @property
    def weighs_whole(self) -> bool:
        """Whether a mean net says how much each pixel of the image of full size counts."""
        return self.shows_whole and not self.masks_whole and self.out_channels == self.in_channels


def _check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{flag} {value!r}: choose one of {', '.join(choices)}")
