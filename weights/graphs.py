"""Networks as computations with named inputs, of any batch and size that they can do.

What is exported is the plain arithmetic: layers that are faster on a CPU in another way
(`models.cpu`) stand aside while a network is traced.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.config import SubpixelConfig
from models.encoder import EncoderUNet
from models.subpixel import SubpixelBase
from models.unet import UNetBase
from utils.process.errors import DataError
from weights.source import Log

# the exported computation may differ from the network by this share of the largest output
MOST_DIFFERENCE = 1e-4
_SEED = 0


@dataclass(frozen=True)
class Input:
    """One tensor that a computation takes.

    Attributes:
        name: of the argument.
        channels: of images; 0: a vector of whole numbers, one an image.
        unit: the sides of images are multiples of it; 0: the size is fixed.
        sides: height and width of images whose size is fixed.
        num_values: of whole numbers: they are in [0, num_values).
    """

    name: str
    channels: int = 0
    unit: int = 0
    sides: tuple[int, int] = (0, 0)
    num_values: int = 0

    def shape(self, batch: int, rows: int, columns: int) -> tuple[int, ...]:
        """The shape of so many images of rows × columns units."""
        if not self.channels:
            return (batch,)
        sides = (self.unit * rows, self.unit * columns) if self.unit else self.sides
        return (batch, self.channels, *sides)

    def words(self) -> str:
        """The shape and what may vary in it, for people."""
        if not self.channels:
            return f"{self.name} (batch), whole numbers below {self.num_values}"
        if not self.unit:
            return f"{self.name} (batch, {self.channels}, {self.sides[0]}, {self.sides[1]})"
        unit = "" if self.unit == 1 else f"{self.unit}·"
        return f"{self.name} (batch, {self.channels}, {unit}height, {unit}width)"


@dataclass(frozen=True)
class Graph:
    """A computation that can be exported.

    Attributes:
        module: its `forward` takes `inputs` in this order and returns one tensor.
        inputs: what it takes.
        output: name of what it returns.
    """

    module: nn.Module
    inputs: tuple[Input, ...]
    output: str

    @property
    def has_free_size(self) -> bool:
        """Whether images of several sizes can be given."""
        return any(one.unit for one in self.inputs)

    def example(self, batch: int, rows: int, columns: int) -> tuple[Tensor, ...]:
        """The same inputs each time, rows × columns units: normal values, numbers in range."""
        generator = torch.Generator().manual_seed(_SEED)
        values: list[Tensor] = []
        for one in self.inputs:
            shape = one.shape(batch, rows, columns)
            if one.channels:
                values.append(torch.randn(shape, generator=generator).clamp(-3, 3))
            else:
                values.append(torch.randint(one.num_values, shape, generator=generator))
        return tuple(values)

    def free_axes(self) -> tuple[dict[int, Dim], ...]:
        """Axis → its dimension as torch.export wants it, of each input."""
        batch, height, width = (Dim(name, min=1) for name in ("batch", "height", "width"))
        axes = []
        for one in self.inputs:
            free: dict[int, Dim] = {0: batch}
            if one.channels and one.unit:
                # Dim knows no product with 1
                is_whole = one.unit == 1
                free[2] = height if is_whole else one.unit * height
                free[3] = width if is_whole else one.unit * width
            axes.append(free)
        return tuple(axes)

    def check_sizes(self) -> list[tuple[int, int, int]]:
        """Batch, rows and columns of the inputs that an exported computation is tried with."""
        return [(1, 2, 3), (3, 3, 2)] if self.has_free_size else [(1, 1, 1), (3, 1, 1)]


class _MeanGraph(nn.Module):
    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, low_res: Tensor, labels: Tensor | None = None) -> Tensor:
        height, width = low_res.shape[2:]
        output: Tensor = self.network(low_res, (self.factor * height, self.factor * width), labels)
        return output


class _VarianceGraph(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, low_res: Tensor, mean: Tensor, labels: Tensor | None = None) -> Tensor:
        output: Tensor = self.network(low_res, mean, labels)
        return output


class _TimedGraph(nn.Module):
    """A network that is told the timesteps of the whole chain, which it may know as others."""

    def __init__(self, network: nn.Module, step: float) -> None:
        super().__init__()
        self.network, self.step = network, step

    def told(self, timesteps: Tensor) -> Tensor:
        """The timesteps as the network knows them, as `ReverseProcess.network_timesteps`."""
        return timesteps if self.step == 1 else (timesteps.double() * self.step).float()


class _UpsamplerGraph(_TimedGraph):
    def forward(
        self, x: Tensor, timesteps: Tensor, low_res: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        given = (low_res,) if labels is None else (low_res, labels)
        output: Tensor = self.network(x, self.told(timesteps), *given)
        return output


class _DenoiserGraph(_TimedGraph):
    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        given = () if labels is None else (labels,)
        output: Tensor = self.network(x, self.told(timesteps), *given)
        return output


@dataclass(frozen=True)
class Chain:
    """What a denoiser's timesteps are of: `num_steps` T, and what the network is told for one."""

    num_steps: int
    step: float = 1.0


def mean_graph(network: UNetBase | SubpixelBase, factor: int) -> Graph:
    """The mean net: low_res (N, C, h, w) to (N, C', f·h, f·w)."""
    inputs = (_low_res(network, factor), *_labels(network))
    return Graph(_MeanGraph(network, factor), inputs, "mean")


def variance_graph(network: UNetBase | SubpixelBase, factor: int) -> Graph:
    """The variance net: low_res (N, C, h, w) and mean (N, C, f·h, f·w) to (N, C', f·h, f·w)."""
    low_res = _low_res(network, factor)
    mean = Input("mean", network.config.in_channels, factor * low_res.unit)
    return Graph(_VarianceGraph(network), (low_res, mean, *_labels(network)), "variance")


def upsampler_graph(network: UNetBase | SubpixelBase, factor: int, chain: Chain) -> Graph:
    """The denoiser of x (N, C, f·h, f·w) at whole timesteps (N,), given low_res (N, C, h, w)."""
    low_res = _low_res(network, factor)
    inputs = (
        Input("x", network.config.in_channels, factor * low_res.unit),
        Input("timesteps", num_values=chain.num_steps),
        low_res,
        *_labels(network),
    )
    return Graph(_UpsamplerGraph(network, chain.step), inputs, "prediction")


def denoiser_graph(network: UNetBase, chain: Chain) -> Graph:
    """The denoiser of images x (N, C, H, W) at whole timesteps (N,)."""
    x = Input("x", network.config.in_channels, network.config.downsample_factor)
    inputs = (x, Input("timesteps", num_values=chain.num_steps), *_labels(network))
    return Graph(_DenoiserGraph(network, chain.step), inputs, "prediction")


def classifier_graph(network: EncoderUNet, chain: Chain) -> Graph:
    """The classifier of noisy images x (N, C, H, W) at whole timesteps (N,): logits (N, K)."""
    config = network.config
    if network.encoder_config.pool == "attention":
        x = Input("x", config.in_channels, sides=config.image_sides)
    else:
        x = Input("x", config.in_channels, config.downsample_factor)
    inputs = (x, Input("timesteps", num_values=chain.num_steps))
    return Graph(_DenoiserGraph(network, chain.step), inputs, "logits")


def trace(graph: Graph) -> ExportedProgram:
    """The computation as torch.export sees it, for any batch and size that fits."""
    with torch.no_grad(), quiet_exporter():
        return torch.export.export(
            graph.module,
            graph.example(2, 2, 3),
            dynamic_shapes=graph.free_axes(),
            strict=False,
        )


def largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference of two series of outputs, as a share of the largest value.

    Infinite for outputs that differ in shape or are no numbers.
    """
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return math.inf
        scale = float(one.abs().max()) or 1.0
        share = float((one.double() - other.double()).abs().max()) / scale
        worst = max(worst, share if math.isfinite(share) else math.inf)
    return worst


def require_same(
    graph: Graph, run: Callable[[Sequence[Tensor]], Tensor], name: str, log: Log
) -> None:
    """Compare what `run` makes of the computation with the network, at two batches and sizes.

    Raises:
        DataError: the largest difference is more than `MOST_DIFFERENCE` of the largest output.
    """
    worst, sizes = 0.0, []
    with torch.no_grad(), quiet_exporter():
        for size in graph.check_sizes():
            inputs = graph.example(*size)
            expected = graph.module(*inputs)
            worst = max(worst, largest_difference([expected], [run(inputs)]))
            sizes.append("×".join(map(str, expected.shape)))
    found = f"{worst:.2g} of the largest value, for outputs of {' and '.join(sizes)}"
    if worst > MOST_DIFFERENCE:
        raise DataError(
            f"{name} differs from the network by {found}; at most {MOST_DIFFERENCE:g} is allowed, "
            "so nothing was written: use the network from here, or another --format"
        )
    log(f"{name} against the network: the largest difference is {found}")


def told_of(graph: Graph) -> str:
    """What goes in and what comes out, for people."""
    return f"{', '.join(one.words() for one in graph.inputs)} → {graph.output}"


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep what torch's exporters say of themselves off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _labels(network: UNetBase | SubpixelBase) -> tuple[Input, ...]:
    number = network.config.num_classes
    return () if number is None else (Input("labels", num_values=number),)


def _low_res(network: UNetBase | SubpixelBase, factor: int) -> Input:
    """The low-res image and what follows it in its channels, as masks."""
    config = network.config
    halvings = 1 if isinstance(config, SubpixelConfig) else config.downsample_factor
    unit = halvings // math.gcd(halvings, factor)
    return Input("low_res", config.x_channels, unit)
