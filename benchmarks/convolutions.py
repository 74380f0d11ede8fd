"""A wide 3×3 convolution and the norm before it on a CPU: the direct ways and the project's.

    python -m benchmarks.convolutions

Forward and backward of the convolution (direct: contiguous, as in the plain network), and of the
group norm of an image that is channels last (direct: torch's). The sizes are those of the 64→256
upsampler, then those of a mean net of 64 channels with four images; the last two are below the
bounds of `models.cpu`, and show why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure
from benchmarks.record import Table, Target, write_record
from models.cpu.group_norm import group_norm_channels_last
from models.cpu.winograd import winograd_conv2d
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import from_args, make_parser

# images, channels, output channels, side
SHAPES = (
    (1, 192, 192, 256),
    (1, 384, 384, 64),
    (1, 768, 768, 16),
    (4, 64, 64, 64),
    (4, 128, 128, 32),
    (4, 256, 256, 8),
    (4, 32, 32, 64),
)
NUM_GROUPS = 32


@dataclass(frozen=True)
class ConvolutionFlags(TimingFlags):
    """How long to measure."""


Shape = tuple[int, int, int, int]


def variants_of(shape: Shape) -> list[Variant]:
    """Direct and fast ways: forward, backward, backward of the norm."""
    num_images, channels, out_channels, side = shape
    x = nets.noise(num_images, channels, side, side)
    weight = nets.noise(out_channels, channels, 3, 3, seed=1) / (9 * channels) ** 0.5
    grad = nets.noise(num_images, out_channels, side, side, seed=2)
    last, grad_last = _channels_last(x), _channels_last(grad)
    scale, shift = torch.ones(channels), torch.zeros(channels)
    weight.requires_grad_()
    names = "forward", "backward", "norm, backward"

    def direct(value: Tensor) -> Tensor:
        return F.conv2d(value, weight, padding=1)

    def fast(value: Tensor) -> Tensor:
        return winograd_conv2d(value, weight)

    def norm(value: Tensor) -> Tensor:
        return F.group_norm(value, NUM_GROUPS, scale, shift)

    def fast_norm(value: Tensor) -> Tensor:
        return group_norm_channels_last(value, NUM_GROUPS, scale, shift, 1e-5)

    return [
        _forward(f"{names[0]}: direct", direct, x),
        _forward(f"{names[0]}: project", fast, last, f"{names[0]}: direct"),
        _backward(f"{names[1]}: direct", direct, x, grad),
        _backward(f"{names[1]}: project", fast, last, grad_last, f"{names[1]}: direct"),
        _backward(f"{names[2]}: direct", norm, last, last),
        _backward(f"{names[2]}: project", fast_norm, last, last, f"{names[2]}: direct"),
    ]


def _forward(
    name: str, function: Callable[[Tensor], Tensor], x: Tensor, against: str = ""
) -> Variant:
    @torch.inference_mode()
    def call() -> Tensor:
        return function(x)

    return Variant(name, call, lambda output: output, against or name)


def _backward(
    name: str, function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor, against: str = ""
) -> Variant:
    """The gradients of input and weight, whose graph is made once."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = function(x)

    def call() -> Tensor:
        x.grad = None
        output.backward(grad, retain_graph=True)
        assert x.grad is not None
        return x.grad

    return Variant(name, call, lambda gradient: gradient, against or name)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def targets_of(measured: dict[Shape, Measurement]) -> list[Target]:
    """No goals of their own: what the bounds of `models.cpu` rest on."""
    first = measured[SHAPES[0]]
    ratio = first.ratio("forward: project", "forward: direct")
    return [Target("convolution of 192 channels at 256², forward", ratio, 1.0)]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = make_parser(__doc__, benchmark=ConvolutionFlags)
    flags = from_args(ConvolutionFlags, parser.parse_args(argv))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    measured = {shape: measure(variants_of(shape), flags) for shape in SHAPES}
    tables = [
        Table(f"{n} × {c} → {k} channels, {side}²", measured[n, c, k, side].rows())
        for n, c, k, side in SHAPES
    ]
    write_record("convolutions", flags, tables, targets_of(measured))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
