"""A mean net here, as a program of torch.export, and by onnxruntime: sizes, differences, seconds.

    python -m benchmarks.exported --output_dir outputs/bench

Nets with random weights, which cost what trained ones do: the sub-pixel network of the README's
"Your own images", a U-Net of 64 channels at the high-res side, and with `--nets mean_64_256` the
mean net of `sr_mean_train.py` by default. The image has 64×64 low-res pixels, the result 256×256.
Needs onnx, onnxscript and onnxruntime (./setup.sh export).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure
from benchmarks.record import Table, write_record
from sr_var.script_util import create_mean_model
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser, require_known
from weights.graphs import Graph, largest_difference, mean_graph
from weights.onnx_graph import open_onnx, require_onnx, to_onnx
from weights.to_torch_export import to_program

FACTOR, SIDE = 4, 64
HERE, PROGRAM, ONNX = "network", "torch.export", "onnxruntime"


@dataclass(frozen=True)
class ExportedFlags(TimingFlags):
    """Which networks, and how long to measure."""

    nets: str = flag("subpixel,unet", "which, comma separated; mean_64_256 takes minutes")

    def __post_init__(self) -> None:
        """Refuse networks that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        super().__post_init__()
        require_known(self, nets=NETS)


def _mean_64_256() -> Graph:
    network = nets.fill(create_mean_model(large_size=FACTOR * SIDE, small_size=SIDE))
    return mean_graph(network.eval().requires_grad_(False), FACTOR)


NETS: dict[str, Callable[[], Graph]] = {
    "subpixel": lambda: mean_graph(nets.small_subpixel(FACTOR), FACTOR),
    "unet": lambda: mean_graph(nets.small_unet(FACTOR * SIDE), FACTOR),
    "mean_64_256": _mean_64_256,
}


def measure_net(graph: Graph, flags: ExportedFlags) -> tuple[Measurement, dict[str, Any]]:
    """The three ways, and the files' sizes and differences from the network."""
    started = time.process_time()
    program_bytes = to_program(graph, {})
    between = time.process_time()
    model_bytes = to_onnx(graph, {})
    seconds = {
        "pt2_cpu_seconds": between - started,
        "onnx_cpu_seconds": time.process_time() - between,
    }
    program = torch.export.load(io.BytesIO(program_bytes)).module()
    session = open_onnx(model_bytes, num_threads=torch.get_num_threads())
    low_res = nets.noise(1, 3, SIDE, SIDE).clamp(-1, 1)

    def by_onnx() -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"low_res": low_res.numpy()})[0])

    calls = {HERE: graph.module, PROGRAM: program}
    variants = [
        Variant(name, torch.inference_mode()(lambda call=call: call(low_res)), lambda out: out)
        for name, call in calls.items()
    ]
    measured = measure([*variants, Variant(ONNX, by_onnx, lambda out: out)], flags)
    found = measured.results
    extra = {
        "num_parameters": sum(one.numel() for one in graph.module.parameters()),
        "pt2_bytes": len(program_bytes),
        "onnx_bytes": len(model_bytes),
        **seconds,
        "largest_difference": {
            name: largest_difference([found[HERE]], [found[name]]) for name in (PROGRAM, ONNX)
        },
    }
    return measured, extra


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(ExportedFlags, make_parser(__doc__, benchmark=ExportedFlags).parse_args(argv))
    require_onnx()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    tables: list[Table] = []
    extra: dict[str, Any] = {}
    for name in flags.nets.split(","):
        measured, extra[name] = measure_net(NETS[name](), flags)
        tables.append(Table(name, measured.rows()))
        print(f"{name}: {extra[name]}")
    write_record("exported", flags, tables, [], extra)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
