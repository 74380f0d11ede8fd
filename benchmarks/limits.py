"""How near each kind of layer comes to what this machine can do at all.

    python -m benchmarks.limits --net small_16_64
    python -m benchmarks.limits --net 64_256_upsampler --precision bf16

The machine's rates are measured first: operations a second of a large matrix product in the
network's precision, and bytes a second of a large copy (read and written). Then the time of every
layer of a forward pass is taken, and summed by kind. A layer that computes much is held against the
matrix rate, two operations a multiply-add of the direct sum; one that computes little against the
bandwidth, its input, output and weights each moved once. What runs outside of these layers is the
last line. CPU only: a GPU runs behind the calls that are timed here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.forward import matrix_rate
from benchmarks.harness import TimingFlags, Variant, measure, quartiles
from benchmarks.record import Target, write_record
from benchmarks.ways import NETS, SIDE
from models.blocks import AttentionBlock
from utils.flags.groups import Precision
from utils.loops.networks import cast_to
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

_COPY_BYTES = 2**28
_OTHER = "everything else"
PRECISIONS = {str(one): one for one in (Precision.FP32, Precision.BF16)}
_GOAL = 0.7  # of the matrix rate, in the convolutions of an upsampler in bf16


@dataclass(frozen=True)
class LimitFlags(TimingFlags):
    """Which network, and in which precision."""

    net: str = flag("small_16_64", "which network", tuple(NETS))
    precision: str = flag("fp32", "of its layers", tuple(PRECISIONS))
    batch_size: int = flag(1, "images of a pass")


@dataclass
class Kind:
    """Layers of one kind in one pass.

    Attributes:
        seconds: of all of them.
        calls: how many there are.
        operations: two per multiply-add of the direct sum.
        num_bytes: inputs, outputs and weights.
    """

    seconds: float = 0.0
    calls: int = 0
    operations: int = 0
    num_bytes: int = 0


def kind_of(layer: nn.Module) -> str:
    """What a layer counts as; empty for those that only hold others."""
    if isinstance(layer, AttentionBlock):
        return "attention, with its norm and projections"
    if isinstance(layer, nn.Conv2d):
        side = layer.kernel_size[0]
        wide = "" if side == 1 or min(layer.weight.shape[:2]) >= 32 else ", few channels"
        return f"convolution {side}×{side}{wide}"
    if isinstance(layer, nn.Linear):
        return "linear"
    if isinstance(layer, nn.GroupNorm):
        return "group norm"
    if isinstance(layer, nn.SiLU):
        return "activation"
    return ""


@contextmanager
def timed_layers(network: nn.Module) -> Iterator[dict[str, Kind]]:
    """Time every layer of a known kind; those within attention count with it."""
    kinds: dict[str, Kind] = {}
    started: dict[int, float] = {}
    handles = []

    def before(layer: nn.Module, inputs: Any) -> None:
        started[id(layer)] = time.perf_counter()

    def after(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        elapsed = time.perf_counter() - started[id(layer)]
        kind = kinds.setdefault(kind_of(layer), Kind())
        kind.seconds += elapsed
        kind.calls += 1
        kind.operations += operations_of(layer, output)
        moved = (inputs[0], output, *layer.parameters())
        kind.num_bytes += sum(value.nbytes for value in moved)

    inside: set[int] = set()
    for layer in network.modules():
        if id(layer) in inside or not kind_of(layer):
            continue
        inside.update(id(one) for one in layer.modules())
        handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield kinds
    finally:
        for handle in handles:
            handle.remove()


def operations_of(layer: nn.Module, output: Tensor) -> int:
    """Operations of a call, two per multiply-add; 0 for layers that compute little."""
    if isinstance(layer, nn.Conv2d):
        return 2 * output.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.Linear):
        return 2 * output.numel() * layer.in_features
    if isinstance(layer, AttentionBlock):
        num_images, channels = output.shape[:2]
        pixels = output[0, 0].numel()
        return 2 * num_images * pixels * channels * (4 * channels + 2 * pixels)
    return 0


def bandwidth() -> float:
    """Bytes a second of a large copy, counted twice: read and written."""
    source = torch.ones(_COPY_BYTES // 4)
    target = torch.empty_like(source)
    flags = TimingFlags(rounds=5)
    times = measure([Variant("copy", lambda: target.copy_(source))], flags).times["copy"]
    return 2 * _COPY_BYTES / quartiles(times)[1]


def passes(flags: LimitFlags) -> tuple[dict[str, Kind], float]:
    """The kinds of layers of the median pass, and its seconds."""
    case = NETS[flags.net](flags.batch_size, SIDE)
    network = cast_to(case.network, PRECISIONS[flags.precision])
    found = []
    with torch.inference_mode():
        for number in range(flags.warmup + flags.rounds):
            with timed_layers(network) as kinds:
                started = time.perf_counter()
                case.graph.module(*case.inputs)
                elapsed = time.perf_counter() - started
            if number >= flags.warmup:
                found.append((elapsed, kinds))
    found.sort(key=lambda one: one[0])
    seconds, kinds = found[len(found) // 2]
    return kinds, seconds


def rows_of(
    kinds: Mapping[str, Kind], seconds: float, rate: float, bytes_rate: float
) -> list[dict[str, Any]]:
    """The table: shares of the pass, and of the machine's two rates."""
    rows: list[dict[str, Any]] = []
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1].seconds):
        own = kind.seconds
        rows.append(
            {
                "kind": name,
                "calls": kind.calls,
                "seconds": own,
                "share_of_pass": own / seconds,
                "share_of_matrix_rate": kind.operations / own / rate,
                "share_of_bandwidth": kind.num_bytes / own / bytes_rate,
            }
        )
    rest = seconds - sum(row["seconds"] for row in rows)
    operations = sum(kind.operations for kind in kinds.values())
    whole = operations / seconds / rate
    rows.append({"kind": _OTHER, "seconds": rest, "share_of_pass": rest / seconds})
    rows.append({"kind": "the pass", "seconds": seconds, "share_of_matrix_rate": whole})
    return rows


def format_limits(rows: list[dict[str, Any]], rate: float, bytes_rate: float) -> str:
    """The table in Markdown."""
    lines = [
        f"Matrix products: {rate / 1e9:.1f} · 10⁹ operations a second; "
        f"memory: {bytes_rate / 1e9:.1f} · 10⁹ bytes a second.",
        "",
        "| layers | calls | seconds | of the pass | of the matrix rate | of the bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [
            "–" if not row.get(name) else f"{row[name]:.0%}"
            for name in ("share_of_pass", "share_of_matrix_rate", "share_of_bandwidth")
        ]
        lines.append(
            f"| {row['kind']} | {row.get('calls', '–')} | {row['seconds']:.4g} | "
            f"{' | '.join(shares)} |"
        )
    return "\n".join(lines) + "\n"


def targets_of(flags: LimitFlags, kinds: Mapping[str, Kind], rate: float) -> list[Target]:
    """The goal of the wide convolutions, in bf16."""
    if PRECISIONS[flags.precision] is not Precision.BF16:
        return []
    wide = kinds["convolution 3×3"]
    share = wide.operations / wide.seconds / rate
    text = f"{flags.net}: 3×3 convolutions in bf16, share of the matrix rate"
    return [Target(text, share, _GOAL, unit="")]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(LimitFlags, make_parser(__doc__, benchmark=LimitFlags).parse_args(argv))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    dtype = getattr(torch, PRECISIONS[flags.precision].value)
    rate, bytes_rate = matrix_rate(torch.device("cpu"), dtype), bandwidth()
    kinds, seconds = passes(flags)
    rows = rows_of(kinds, seconds, rate, bytes_rate)
    extra = {"matrix_rate": rate, "bandwidth": bytes_rate, "layers": rows}
    text = format_limits(rows, rate, bytes_rate)
    write_record("limits", flags, [], targets_of(flags, kinds, rate), extra, text=text)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
