"""Which computation the network of a checkpoint is."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ddpm.flags import DiffusionFlags
from diffusion.reverse import RESCALED_STEPS
from models.encoder import EncoderUNet
from models.subpixel import SubpixelBase
from models.unet import UNetBase
from sr_var.baseline import predict
from sr_var.flags.nets import BaselineModelFlags
from sr_var.flags.scripts import Sizes
from utils.process.errors import CheckpointError
from utils.sizes import Size
from weights.graphs import (
    Chain,
    Graph,
    classifier_graph,
    denoiser_graph,
    mean_graph,
    upsampler_graph,
    variance_graph,
)
from weights.networks import (
    BASELINE,
    CLASSIFIER,
    DENOISER,
    MEAN,
    SR_DENOISER,
    VARIANCE,
    kind_of,
    restore,
    stored_flags,
)
from weights.source import Log, Source

_OTHER_NAMES = (
    "Ranges and units are those of the arguments in Python, below: `labels` are `y` there, and "
    "`low_res` of a mean or variance net is `x`."
)


def graph_of(source: Source, log: Log) -> Graph:
    """What the network of a checkpoint computes, with its weights, in fp32.

    Raises:
        CheckpointError: it makes no network, or one that is of no image.
    """
    return _graph(source, restore(source, log))


def used_as(source: Source) -> str:
    """Inputs and output as a table in Markdown, for a model card; errors as `graph_of`."""
    with torch.device("meta"):  # its shapes are enough
        graph = _graph(source, kind_of(source).create(source))
    rows = [
        f"| `{one.name}` | {one.words().removeprefix(one.name).strip()} |" for one in graph.inputs
    ]
    table = ["| input | shape |", "| --- | --- |", *rows, f"| → `{graph.output}` | |"]
    return "\n".join([*table, "", _OTHER_NAMES])


def _graph(source: Source, network: nn.Module) -> Graph:
    kind = kind_of(source)
    if kind is DENOISER:
        return denoiser_graph(cast(UNetBase, network), _chain(source))
    if kind is CLASSIFIER:
        return classifier_graph(cast(EncoderUNet, network), _chain(source))
    factor = _factor(source)
    pair = cast(UNetBase | SubpixelBase, network)
    if kind is SR_DENOISER:
        return upsampler_graph(pair, factor, _chain(source))
    if kind is VARIANCE:
        return variance_graph(pair, factor)
    if kind is BASELINE:
        return baseline_graph(pair, stored_flags(source, BaselineModelFlags))
    if kind is MEAN:
        return mean_graph(pair, factor)
    raise CheckpointError(f"{source.path}: a {kind.name} is exported by --format safetensors alone")


def baseline_graph(network: UNetBase | SubpixelBase, flags: BaselineModelFlags) -> Graph:
    """The law that a baseline tells of low_res (N, C, h, w): `law` (N, K·C, f·h, f·w).

    Mean and variance, or the quantiles in the order of their levels, side by side.
    """
    plain = mean_graph(network, _factor_of(flags))
    return Graph(_BaselineGraph(plain.module, flags), plain.inputs, "law")


class _BaselineGraph(nn.Module):
    def __init__(self, raw: nn.Module, flags: BaselineModelFlags) -> None:
        super().__init__()
        self.raw, self.flags = raw, flags

    def forward(self, low_res: Tensor, labels: Tensor | None = None) -> Tensor:
        mean, variance, quantiles = predict(self.flags, self.raw(low_res, labels), low_res)
        if variance is not None:
            return torch.cat([mean, variance], dim=1)
        assert quantiles is not None
        return quantiles.flatten(1, 2)


def _factor(source: Source) -> int:
    return _factor_of(stored_flags(source, Sizes))


def _factor_of(flags: Sizes) -> int:
    large, small = map(Size.of, flags.sizes)
    return large.height // small.height


def _chain(source: Source) -> Chain:
    process = stored_flags(source, DiffusionFlags)
    steps = process.diffusion_steps
    return Chain(steps, RESCALED_STEPS / steps if process.rescale_timesteps else 1.0)
