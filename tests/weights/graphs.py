"""Tiny networks of every kind, as computations; checkpoints of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.config import EncoderConfig, SubpixelConfig
from models.encoder import EncoderUNet
from models.subpixel import (
    SubpixelDenoiser,
    SubpixelModel,
    SubpixelVarianceModel,
    noise_of,
)
from models.unet import SuperResModel, TimeConditionedUNet, UNetModel, VarianceModel
from sr_var.flags.nets import BaselineModelFlags
from sr_var.script_util import create_baseline_model
from tests.models.nets import small_config
from tests.tiny import shake
from weights import graphs
from weights.graphs import Chain, Graph
from weights.source_graphs import baseline_graph

_CHAIN = Chain(1000)


def _frozen(network: Any) -> Any:
    return shake(network).eval().requires_grad_(False)


def _mean_unet() -> Graph:
    config = small_config(
        channel_mult=(1, 1, 2), consistent=True, predict_residual=True, attention_resolutions=()
    )
    return graphs.mean_graph(_frozen(UNetModel(config)), 2)


def _mean_subpixel() -> Graph:
    """It is shown an image of full size, too."""
    config = SubpixelConfig(
        factor=2,
        model_channels=8,
        consistent=True,
        num_classes=3,
        extra_channels=12,
        shows_whole=True,
    )
    return graphs.mean_graph(_frozen(SubpixelModel(config)), 2)


def _variance_unet() -> Graph:
    config = small_config(num_classes=3, last_layer_type="exp", attention_resolutions=())
    return graphs.variance_graph(_frozen(VarianceModel(config)), 4)


def _variance_subpixel() -> Graph:
    config = SubpixelConfig(
        factor=2,
        model_channels=8,
        last_layer_type="softplus",
        extra_channels=16,
        shows_whole=True,
        masks_whole=True,
        res_block="pointwise",
    )
    return graphs.variance_graph(_frozen(SubpixelVarianceModel(config)), 2)


def _upsampler() -> Graph:
    config = small_config(
        num_classes=3,
        out_channels=6,
        extra_channels=1,
        use_scale_shift_norm=True,
        resblock_updown=True,
        attention_resolutions=(),
    )
    return graphs.upsampler_graph(_frozen(SuperResModel(config)), 4, _CHAIN)


def _upsampler_subpixel() -> Graph:
    network = SubpixelDenoiser(
        SubpixelConfig(factor=2, model_channels=8), noise_of([0.9, 0.5, 0.1])
    )
    return graphs.upsampler_graph(_frozen(network), 2, Chain(3))


def _denoiser() -> Graph:
    """Of a chain whose timesteps the network knows as others."""
    config = small_config(num_classes=3, use_new_attention_order=True, attention_resolutions=())
    return graphs.denoiser_graph(_frozen(TimeConditionedUNet(config)), Chain(30, 1000 / 30))


def _classifier() -> Graph:
    """It knows images of one size."""
    config = EncoderConfig(unet=small_config(attention_resolutions=()), num_classes=3)
    return graphs.classifier_graph(_frozen(EncoderUNet(config)), _CHAIN)


def _baseline() -> Graph:
    flags = BaselineModelFlags(
        network="subpixel",
        large_size=32,
        small_size=8,
        model_channels=8,
        num_res_blocks=1,
        objective="quantile",
        quantiles="0.2,0.5,0.8",
    )
    return baseline_graph(_frozen(create_baseline_model(**vars(flags))), flags)


def _gaussian() -> Graph:
    """Its mean is projected, and it is a U-Net."""
    flags = BaselineModelFlags(
        large_size=32,
        small_size=8,
        model_channels=8,
        num_res_blocks=1,
        channel_mult="1,2",
        attention_resolutions="",
        num_heads=1,
        predict_residual=True,
        consistent=True,
    )
    return baseline_graph(_frozen(create_baseline_model(**vars(flags))), flags)


GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "mean": _mean_unet,
    "mean_subpixel": _mean_subpixel,
    "variance": _variance_unet,
    "variance_subpixel": _variance_subpixel,
    "upsampler": _upsampler,
    "upsampler_subpixel": _upsampler_subpixel,
    "baseline": _baseline,
    "gaussian": _gaussian,
    "denoiser": _denoiser,
    "classifier": _classifier,
}
