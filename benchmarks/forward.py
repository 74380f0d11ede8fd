"""A forward pass of the upsampler: plain eager, the project, and what else could be done.

    python -m benchmarks.forward                        the published 64→256 upsampler
    python -m benchmarks.forward --net small_64_256     narrower

On a CPU "stock" is glibc's allocator as it comes, in a process of its own; the rest runs in one
process with the allocator tuned as the scripts do. Ratios are the reference's time over the
variant's.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure, pick_device, quartiles
from benchmarks.record import Table, Target, write_record
from benchmarks.reference.unet import plain_twin
from benchmarks.stock_worker import StockWorker, WorkerFlags, inputs
from utils.fp16_util import computes_natively
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

STOCK, PLAIN, PROJECT = "plain eager, stock allocator", "plain eager", "project"
DIRECT = "project, direct convolutions"
LAST, COMPILED = "project, channels last", "project, channels last, compiled"
PLAIN_HALF = "plain eager, 16 bit"
MATRIX_SIDE_CPU, MATRIX_SIDE_GPU = 2048, 8192


@dataclass(frozen=True)
class ForwardFlags(TimingFlags):
    """What to run."""

    net: str = flag(nets.UPSAMPLER, "which network", nets.NETS)
    batch_size: int = flag(1, "images of a forward pass")
    device: str = flag("auto", "where", ("auto", "cpu", "cuda"))
    compile: bool = flag(False, "torch.compile, too: a minute or two more")
    stock: bool = flag(True, "the stock allocator, too (on a CPU), in a second process")
    memory: bool = flag(True, "peak memory of plain and project (on a CPU), in processes")


def variants_of(
    flags: ForwardFlags, device: torch.device, worker: StockWorker | None
) -> list[Variant]:
    """The ways to run the network, the plainest first."""
    model = nets.upsampler(flags.net)
    given = tuple(value.to(device) for value in inputs(model, flags.batch_size))
    model = model.to(device)
    found = [_variant(PLAIN, plain_twin(model), given), _variant(PROJECT, model, given)]
    if worker is not None:
        found.insert(0, Variant(STOCK, worker.run, worker.result))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        found.append(_variant(LAST, last, given))
    else:
        direct = _variant(DIRECT, model, given)
        found.append(dataclasses.replace(direct, call=nets.with_direct_convolutions(direct.call)))
    if flags.compile:
        found.append(_variant(COMPILED, torch.compile(last), given))
    for dtype in usable_dtypes(device):
        if device.type == "cuda" and dtype == torch.float16:
            twin = copy.deepcopy(plain_twin(model)).cast(dtype)
            found.append(_variant(PLAIN_HALF, twin, given))
        cast = copy.deepcopy(model)
        cast.convert_torso(dtype)
        found.append(_variant(f"project, {_name(dtype)}", cast, given))
        if flags.compile:
            compiled = torch.compile(cast)
            found.append(_variant(f"project, {_name(dtype)}, compiled", compiled, given))
        both = copy.deepcopy(cast).to(memory_format=torch.channels_last)
        found.append(_variant(f"project, {_name(dtype)}, channels last", both, given))
    return found


def usable_dtypes(device: torch.device) -> list[torch.dtype]:
    """The 16-bit types that the device computes in: bf16, and on a GPU fp16."""
    wanted = [torch.bfloat16] + ([torch.float16] if device.type == "cuda" else [])
    return [dtype for dtype in wanted if computes_natively(dtype, device)]


def _variant(name: str, model: Callable[..., torch.Tensor], given: tuple[Any, ...]) -> Variant:
    @torch.inference_mode()
    def call() -> torch.Tensor:
        return model(*given)

    return Variant(name, call, lambda output: output)


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


def best_half(measured: Measurement, against: str) -> float | None:
    """The best ratio of the project as it is started with a 16-bit flag."""
    names = [f"project, {kind}{how}" for kind in ("bf16", "fp16") for how in ("", ", compiled")]
    ratios = [measured.ratio(name, against) for name in names]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def targets_of(
    measured: Measurement, device: torch.device, share: float | None, memory: dict[str, int]
) -> list[Target]:
    """The goals for this device."""
    if device.type == "cuda":
        return [
            Target("16 bit against plain fp32", best_half(measured, PLAIN), 6.0),
            Target("16 bit against plain fp16", best_half(measured, PLAIN_HALF), 2.0),
            Target("share of the measured matrix rate", share, 0.45, unit=""),
        ]
    missing = "" if usable_dtypes(device) else "no bf16 arithmetic on this CPU: left out"
    found = [
        Target("fp32 as started, against plain stock", measured.ratio(PROJECT, STOCK), 1.5),
        Target(
            "bf16 as started, against plain stock", best_half(measured, STOCK), 2.8, note=missing
        ),
        Target("fp32, both tuned", measured.ratio(PROJECT, PLAIN), 1.08),
        Target("bf16, both tuned", best_half(measured, PLAIN), 2.0, note=missing),
    ]
    if memory:
        ratio = memory["project, tuned"] / memory["plain eager, tuned"]
        stock = memory["project, tuned"] / memory["plain eager, stock"] - 1
        note = f"{stock:+.0%} against plain on the stock allocator"
        found.append(Target("peak memory against plain", ratio, 1.0, is_at_least=False, note=note))
    return found


def peak_memory(flags: ForwardFlags, threads: int) -> dict[str, int]:
    """Bytes resident at most after two passes, each in a process of its own."""
    found = {}
    cases = {
        "plain eager, stock": (True, False),
        "plain eager, tuned": (True, True),
        "project, tuned": (False, True),
    }
    for name, (is_plain, is_tuned) in cases.items():
        print(f"peak memory: {name}", flush=True)
        what = WorkerFlags(flags.net, flags.batch_size, is_plain, is_tuned, threads)
        with StockWorker(what) as worker:
            for _ in range(2):
                worker.run()
            found[name] = worker.peak_bytes()
    return found


def count_operations(flags: ForwardFlags) -> int:
    """Operations of a pass, two per multiply-add, without computing anything."""
    with torch.device("meta"):
        model = nets.upsampler(flags.net)
        given = inputs(model, flags.batch_size)
    meta = [value.to("meta") for value in given]
    # labels are looked at on a CPU only, so the pass needs no values
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*meta)
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the median of five."""
    side = MATRIX_SIDE_GPU if device.type == "cuda" else MATRIX_SIDE_CPU
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    flags = TimingFlags(rounds=5)
    times = measure([Variant("product", lambda: left @ right)], flags, device).times["product"]
    return 2 * side**3 / quartiles(times)[1]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(ForwardFlags, make_parser(__doc__, benchmark=ForwardFlags).parse_args(argv))
    device = pick_device(flags.device)
    if flags.threads:
        torch.set_num_threads(flags.threads)
    threads = torch.get_num_threads()
    is_cpu = device.type == "cpu"
    memory = peak_memory(flags, threads) if is_cpu and flags.memory else {}
    if is_cpu:
        tune_allocator()
        if not usable_dtypes(device):
            print("bf16: this CPU has no arithmetic for it; left out")
    with ExitStack() as stack:
        worker = None
        if is_cpu and flags.stock:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            what = WorkerFlags(flags.net, flags.batch_size, threads=threads, clock=flags.clock)
            what = dataclasses.replace(what, output=str(Path(folder, "result.pt")))
            worker = stack.enter_context(StockWorker(what))
        measured = measure(variants_of(flags, device, worker), flags, device)
    operations = count_operations(flags)
    dtype = (usable_dtypes(device) or [torch.float32])[0] if not is_cpu else torch.float32
    fastest = min(quartiles(times)[1] for times in measured.times.values())
    rate = matrix_rate(device, dtype)
    share = operations / fastest / rate
    print(f"{operations:.3e} operations; the fastest runs at {share:.0%} of {rate:.2e} a second")
    title = f"{flags.net}, batch {flags.batch_size}"
    tables = [Table(title, measured.rows())]
    if STOCK in measured.times:
        tables.append(Table(f"{title}, ratios against {PLAIN}, tuned", measured.rows(PLAIN)))
    extra = {"operations": operations, "matrix_rate": rate, "share": share, "memory": memory}
    write_record("forward", flags, tables, targets_of(measured, device, share, memory), extra)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
