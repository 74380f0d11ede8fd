"""A 3×3 convolution, the norm before it and attention on a CPU: every way there is, by shape.

    python -m benchmarks.convolutions
    python -m benchmarks.convolutions --kinds attention
    python -m benchmarks.convolutions --threads 1 --clock cpu     beside other work

Forward and with the backward pass: planes, which is the plain way; channels last; Winograd's
filtering; channels last with weights in that order, and with weights that oneDNN has packed
(forward alone); bf16 in planes, channels last and packed. Attention: torch's fused kernel, and
plain products, whose weights are kept for the backward pass; a note says how much is kept.
"project" is what `models.layers` does by the rules of `models.cpu.rules`, which rest on these
tables. The sizes are those of the 64→256 upsampler, then those of mean nets.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure, quartiles
from benchmarks.record import Table, Target, write_record
from models.cpu.winograd import winograd_conv2d
from models.layers import Conv3x3, GroupNorm32, attention
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser, require_known

# images, channels, side
SHAPES = (
    (1, 192, 256),
    (1, 192, 128),
    (1, 384, 64),
    (1, 384, 32),
    (1, 768, 16),
    (1, 768, 8),
    (1, 128, 256),
    (1, 64, 256),
    (8, 128, 32),
    (8, 64, 64),
    (8, 64, 16),
    (4, 48, 64),
    (4, 256, 16),
    (4, 256, 8),
)
# images, tokens, heads, width of a head
ATTENTIONS = tuple(
    (max(1, min(8, 1024 // length)), length, (256 if length < 4096 else 128) // width, width)
    for length in (64, 256, 1024, 4096)
    for width in (32, 64, 128)
)
PLANES, PROJECT, BF16 = "planes", "project", "bf16, project"
FUSED = "bf16, fused"
_ONES = [1, 1]


@dataclass(frozen=True)
class ConvolutionFlags(TimingFlags):
    """What, and how long to measure."""

    kinds: str = flag("convolution,norm,attention", "of layers, comma separated")

    def __post_init__(self) -> None:
        """Refuse kinds that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        super().__post_init__()
        require_known(self, kinds=KINDS)


Shape = tuple[int, ...]
Layer = Callable[[Tensor], Tensor]


def convolutions_of(shape: Shape, *, with_backward: bool) -> list[Variant]:
    """The ways to convolve, the plain one first."""
    num_images, channels, side = shape
    x = nets.noise(num_images, channels, side, side)
    last = _channels_last(x)
    layer = Conv3x3(channels, channels, 3, padding=1, bias=False)
    layer.requires_grad_(with_backward)  # as loaded networks are, and trained ones
    last_weight = _channels_last(layer.weight.detach())
    found = [
        (PLANES, _direct(layer.weight), x),
        ("channels last", _direct(layer.weight), last),
        ("channels last, weights too", _direct(last_weight.requires_grad_(with_backward)), last),
        ("Winograd", partial(winograd_conv2d, weight=layer.weight), last),
        (PROJECT, layer, last),
    ]
    half = copy.deepcopy(layer).bfloat16()
    found += [
        ("bf16, planes", _direct(half.weight), x.bfloat16()),
        ("bf16, channels last", _direct(half.weight), last.bfloat16()),
        (BF16, half, last.bfloat16()),
    ]
    if not with_backward:
        found.insert(4, ("packed weights", _packed(layer.weight, last), last))
        found.append(("bf16, packed weights", _packed(half.weight, last), last.bfloat16()))
    return [_variant(*one, with_backward=with_backward) for one in found]


def norms_of(shape: Shape, *, with_backward: bool) -> list[Variant]:
    """The ways to normalise, the plain one first."""
    num_images, channels, side = shape
    x = nets.noise(num_images, channels, side, side)
    last, layer = _channels_last(x), GroupNorm32(channels)
    plain = partial(F.group_norm, num_groups=layer.num_groups, weight=layer.weight, bias=layer.bias)
    found: list[tuple[str, Layer, Tensor]] = [
        (PLANES, plain, x),
        ("channels last", plain, last),
        (PROJECT, layer, last),
        ("bf16, planes", plain, x.bfloat16()),
        ("bf16, channels last", plain, last.bfloat16()),
        (BF16, layer, last.bfloat16()),
    ]
    return [_variant(*one, with_backward=with_backward) for one in found]


def attentions_of(shape: Shape, *, with_backward: bool) -> list[Variant]:
    """The ways to attend, torch's fused kernel first."""
    num_images, length, heads, width = shape
    qkv = nets.noise(num_images, length, 3 * heads * width)
    ways: list[tuple[str, Layer]] = [
        ("fused", partial(_attend, heads=heads, mix=F.scaled_dot_product_attention)),
        ("products", partial(_attend, heads=heads, mix=_products)),
        (PROJECT, partial(attention, num_heads=heads, use_new_order=False)),
    ]
    given = [(name, way, qkv) for name, way in ways]
    given += [(f"bf16, {name}", way, qkv.bfloat16()) for name, way in ways]
    found = [_variant(*one, with_backward=with_backward) for one in given]
    if not with_backward:
        return found
    notes = [f"keeps {_kept_bytes(way, x) / 2**20:.1f} MiB" for _, way, x in given]
    return [dataclasses.replace(one, note=note) for one, note in zip(found, notes, strict=True)]


def _attend(qkv: Tensor, heads: int, mix: Callable[..., Tensor]) -> Tensor:
    """What `models.layers.attention` does around `mix`."""
    parts = qkv.view(*qkv.shape[:2], heads, 3, -1).unbind(3)
    return mix(*(part.transpose(1, 2) for part in parts)).transpose(1, 2).flatten(2)


def _products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    return scores.softmax(dim=-1) @ value


def _kept_bytes(layer: Layer, x: Tensor) -> int:
    """Bytes that a layer keeps for its backward pass."""
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = layer(x.detach().requires_grad_())
    del output
    return sum(kept.values())


def _direct(weight: Tensor) -> Layer:
    return partial(F.conv2d, weight=weight, padding=1)


def _packed(weight: Tensor, x: Tensor) -> Layer:
    """With weights in the order of the library's kernels, which inference alone could keep."""
    where = _ONES, _ONES, _ONES, 1
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *where, list(x.shape))
    call = torch.ops.mkldnn._convolution_pointwise

    def convolve(value: Tensor) -> Tensor:
        output: Tensor = call(value, packed, None, *where, "none", [], "")
        return output

    return convolve


def _variant(name: str, layer: Layer, x: Tensor, *, with_backward: bool) -> Variant:
    if not with_backward:

        @torch.inference_mode()
        def forward() -> Tensor:
            return layer(x)

        return Variant(name, forward, lambda output: output)
    given = x.detach().requires_grad_()

    def both() -> Tensor:
        given.grad = None
        output = layer(given)
        output.backward(output.detach())
        assert given.grad is not None
        return given.grad

    return Variant(name, both, lambda gradient: gradient)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def matrix_rates(flags: TimingFlags, side: int = 2048) -> dict[str, float]:
    """Operations a second of a large matrix product, by type."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (nets.noise(side, side, seed=i).to(dtype) for i in range(2))
        product = Variant("product", partial(torch.mm, left, right))
        times = measure([product], flags).times["product"]
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / quartiles(times)[1]
    return found


# the variants and the shapes
KINDS: dict[str, Callable[[], tuple[Callable[..., list[Variant]], Sequence[Shape]]]] = {
    "convolution": lambda: (convolutions_of, SHAPES),
    "norm": lambda: (norms_of, SHAPES),
    "attention": lambda: (attentions_of, ATTENTIONS),
}


def targets_of(measured: dict[str, Measurement]) -> list[Target]:
    """No way that the rules choose is slower than the plain one.

    A network has one order of its images, so that a norm is compared with torch's in that order.
    """
    ways = (
        ("convolution", PROJECT, PLANES),
        ("convolution", BF16, "bf16, planes"),
        ("norm", PROJECT, "channels last"),
        ("norm", BF16, "bf16, channels last"),
        ("attention", BF16, FUSED),
    )
    found = []
    for kind, own, plain in ways:
        ratios = {
            name: one.ratio(own, plain) or 0.0
            for name, one in measured.items()
            if name.startswith(kind)
        }
        if ratios:
            worst = min(ratios, key=lambda name: ratios[name])
            text = f"slowest of the project's {kind}s" + (" in bf16" if own == BF16 else "")
            found.append(Target(text, ratios[worst], 0.95, note=worst))
    return found


def _named(kind: str, shape: Shape) -> str:
    if kind == "attention":
        num_images, length, heads, width = shape
        return f"{kind}, {num_images} × {heads} heads of {width}, {length} tokens"
    num_images, channels, side = shape
    return f"{kind}, {num_images} × {channels} channels, {side}²"


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = make_parser(__doc__, benchmark=ConvolutionFlags)
    flags = from_args(ConvolutionFlags, parser.parse_args(argv))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    measured: dict[str, Measurement] = {}
    for kind in flags.kinds.split(","):
        variants_of, shapes = KINDS[kind]()
        for shape, with_backward in itertools.product(shapes, (False, True)):
            direction = "forward and backward" if with_backward else "forward"
            name = f"{_named(kind, shape)}, {direction}"
            measured[name] = measure(variants_of(shape, with_backward=with_backward), flags)
    tables = [Table(name, one.rows()) for name, one in measured.items()]
    extra = {"matrix_rates": matrix_rates(flags)}
    write_record("convolutions", flags, tables, targets_of(measured), extra)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
