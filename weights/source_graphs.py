"""Which computation the network of a checkpoint is."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ddpm.flags import DiffusionFlags
from diffusion.reverse import RESCALED_STEPS
from models.encoder import EncoderUNet
from models.subpixel import SubpixelBase
from models.unet import UNetBase
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
    if kind in (MEAN, BASELINE):
        return mean_graph(pair, factor)
    raise CheckpointError(f"{source.path}: a {kind.name} is exported by --format safetensors alone")


def _factor(source: Source) -> int:
    large, small = map(Size.of, stored_flags(source, Sizes).sizes)
    return large.height // small.height


def _chain(source: Source) -> Chain:
    process = stored_flags(source, DiffusionFlags)
    steps = process.diffusion_steps
    return Chain(steps, RESCALED_STEPS / steps if process.rescale_timesteps else 1.0)
