"""Images a second of ways to make a larger image: bicubic, EDSR, the toolkit's networks.

    python -m benchmarks.methods                      results of 256² and of 1024² (1 megapixel)

Each makes one image four times as wide and high. Bicubic is Pillow's; EDSR is the baseline of
Lim et al. 2017 (arXiv 1707.02921: 16 blocks of 64 channels), written in plain PyTorch here. Weights
are drawn, which changes no time. A mean net and a variance net of a kind take the same time each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import nets
from benchmarks.harness import TimingFlags, Variant, measure
from benchmarks.record import Table, write_record
from utils.flags.groups import Precision
from utils.fp16_util import computes_natively
from utils.loops.networks import cast_to
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser
from weights.graphs import mean_graph

FACTOR = 4


@dataclass(frozen=True)
class MethodFlags(TimingFlags):
    """How large the results are, and how long to measure."""

    sides: str = flag("256,1024", "of the results, pixels, comma separated; multiples of 32")


class EDSR(nn.Module):
    """The baseline of Lim et al. 2017 for four times the side, with 1.5 million weights."""

    def __init__(self, width: int = 64, num_blocks: int = 16) -> None:
        super().__init__()

        def conv(channels: int, out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out_channels, 3, padding=1)

        self.head = conv(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(width, width), nn.ReLU(inplace=True), conv(width, width))
            for _ in range(num_blocks)
        )
        self.body_end = conv(width, width)
        doubled = [part for _ in range(2) for part in (conv(width, 4 * width), nn.PixelShuffle(2))]
        self.tail = nn.Sequential(*doubled, conv(width, 3))

    def forward(self, low_res: Tensor) -> Tensor:
        """Return (N, 3, 4h, 4w) for images (N, 3, h, w)."""
        first = x = self.head(low_res)
        for block in self.blocks:
            x = x + block(x)
        output: Tensor = self.tail(first + self.body_end(x))
        return output


def methods(side: int) -> list[Variant]:
    """Every method for one result of side × side pixels."""
    low_res = nets.noise(1, 3, side // FACTOR, side // FACTOR).clamp(-1, 1)
    pixels = ((low_res[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))

    def bicubic() -> Image.Image:
        return picture.resize((side, side), Image.Resampling.BICUBIC)

    edsr = nets.fill(EDSR()).eval().requires_grad_(False)
    found = [Variant("bicubic, Pillow", bicubic), _pass("EDSR, plain torch", edsr, low_res)]
    networks: dict[str, Callable[[], nn.Module]] = {
        "sub-pixel, 32 channels, 4 blocks": lambda: nets.small_subpixel(FACTOR),
        "sub-pixel, 64 channels, 16 blocks": lambda: nets.subpixel(FACTOR, 64, 16),
        "sub-pixel, 128 channels, 16 blocks": lambda: nets.large_subpixel(FACTOR),
        "U-Net, 64 channels": lambda: nets.small_unet(side),
    }
    for name, make in networks.items():
        for precision in _precisions():
            graph = mean_graph(cast_to(make(), precision), FACTOR)  # type: ignore[type-var]
            end = "" if precision is Precision.FP32 else f", {precision}"
            found.append(_pass(name + end, graph.module, low_res))
    return found


def _precisions() -> Sequence[Precision]:
    has_bf16 = computes_natively(torch.bfloat16, torch.device("cpu"))
    return [Precision.FP32, Precision.BF16] if has_bf16 else [Precision.FP32]


def _pass(name: str, module: Callable[[Tensor], Tensor], low_res: Tensor) -> Variant:
    @torch.inference_mode()
    def call() -> Tensor:
        return module(low_res)

    return Variant(name, call)


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(MethodFlags, make_parser(__doc__, benchmark=MethodFlags).parse_args(argv))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    tables = []
    for side in (int(word) for word in flags.sides.split(",")):
        rows = measure(methods(side), flags).rows("EDSR, plain torch")
        tables.append(Table(f"{side}² from {side // FACTOR}²", rows))
    write_record("methods", flags, tables, [])
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
