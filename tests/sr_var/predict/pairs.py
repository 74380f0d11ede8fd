"""Pairs of tiny networks with weights that are not zero, as `NetPair` has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.subpixel import SubpixelBase
from sr_var.degrade.language import Degradation
from sr_var.predict.nets import NetPair, _multiple, _reach
from sr_var.script_util import create_mean_model, create_var_model
from sr_var.values import GREY_LEVELS, Units
from tests.tiny import LARGE, REGRESSION_NET, SMALL, shake
from utils.flags.groups import Precision
from utils.sizes import Size

FACTOR = LARGE // SMALL
SUBPIXEL = {
    "network": "subpixel",
    "large_size": LARGE,
    "small_size": SMALL,
    "model_channels": 8,
    "num_res_blocks": 1,
}


def subpixel_pair(units: Units = GREY_LEVELS, **mean_flags: object) -> NetPair:
    """Sub-pixel networks of factor 4, whose results depend on 10 pixels in each direction."""
    channels = {"in_channels": units.num_channels, "out_channels": units.num_channels}
    mean = create_mean_model(**SUBPIXEL, **channels, **mean_flags)
    var = create_var_model(**SUBPIXEL, **channels, last_layer_type="softplus")
    return as_pair(mean, var, units)


def unet_pair(**mean_flags: object) -> NetPair:
    """U-Nets of two levels that were made for 8 → 32 pixels."""
    flags = {**REGRESSION_NET, **mean_flags}
    return as_pair(create_mean_model(**flags), create_var_model(**REGRESSION_NET))


# floats of grey levels, which noise may leave
FLOATS = Units(0.0, 255.0, 3, is_8_bit=False)


def pair_of(words: str, factor: int, units: Units = FLOATS, **more: Any) -> NetPair:
    """Networks of a degradation; `network` is that of `more`, or subpixel."""
    sizes = {"large_size": LARGE, "small_size": LARGE // factor, "degradation": words, **more}
    flags = {**(REGRESSION_NET if more.get("network") == "unet" else SUBPIXEL), **sizes}
    pair = as_pair(
        create_mean_model(**flags), create_var_model(**flags, last_layer_type="softplus"), units
    )
    has_level = bool(more.get("condition_on_level"))
    made = Degradation.parse(words, factor, units.num_channels, has_level=has_level)
    return replace(pair, factor=factor, degradation=made)


def as_pair(mean: nn.Module, var: nn.Module, units: Units = GREY_LEVELS) -> NetPair:
    """Networks with shaken weights, on the CPU."""
    nets = [shake(net, seed).eval().requires_grad_(False) for seed, net in enumerate((mean, var))]
    for net in nets:  # a shaken body is far larger than what it is added to
        if isinstance(net, SubpixelBase):
            net.out[0].weight.mul_(0.1)
    return NetPair(
        *nets,  # type: ignore[misc]
        device=torch.device("cpu"),
        factor=FACTOR,
        units=units,
        train_size=Size.of(SMALL),
        reach=_reach(nets),
        multiple=_multiple(nets, FACTOR),
        digests=("m", "v"),
        precision=Precision.FP32,
    )
