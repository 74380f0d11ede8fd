"""Hyper-parameters of the noise-aware classifier.

Not the place for the hyper-parameters of the U-Net that it is the first half of (`models.config`).
Like there, torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from models.config import UNetConfig

POOLS = ("adaptive", "attention", "spatial", "spatial_v2")

# Fields of a U-Net that nothing in its first half reads.
_UNUSED_FIELDS = (
    "out_channels",
    "num_classes",
    "num_heads_upsample",
    "predict_residual",
    "last_layer_type",
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
        if self.pool not in POOLS:
            raise ValueError(f"{pool} {self.pool!r}: choose one of {', '.join(POOLS)}")
        if self.pool == "attention" and self.unet.dims == 3:
            raise ValueError(
                f"{pool} attention has a position for each place of a square image, --dims 3 "
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
    def bottom_side(self) -> int:
        """Side of the bottleneck, in places, for images of `image_size` pixels."""
        return self.unet.image_size // self.unet.downsample_factor
