"""The kinds of networks, and of the residual blocks that a sub-pixel one has."""

from __future__ import annotations

from dataclasses import dataclass

from models.config import CONV3X3, RES_BLOCKS
from utils.script_util import flag

# what a mean, a variance or a baseline net may be: models.unet, models.subpixel
UNET, SUBPIXEL = "unet", "subpixel"


@dataclass(frozen=True)
class NetworkFlags:
    """Which network estimates a mean or a variance."""

    network: str = flag(
        UNET,
        "unet; subpixel: residual blocks at the low-res side (model_channels, num_res_blocks)",
        (UNET, SUBPIXEL),
    )
    res_block: str = flag(
        CONV3X3,
        "residual blocks of a subpixel net: two convolutions of 3×3 pixels, or (pointwise) of 1×1, "
        "four times as wide inside: for --degradation 'area & mask:0.5'",
        RES_BLOCKS,
    )

    def __post_init__(self) -> None:
        if self.network == UNET and self.res_block != CONV3X3:
            raise ValueError(
                f"--res_block {self.res_block} means nothing to --network {UNET}: leave it out, or "
                f"give --network {SUBPIXEL}"
            )
