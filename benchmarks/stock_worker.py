"""A network in a process of its own, because an allocator that was tuned cannot be untuned.

    python -m benchmarks.stock_worker --net tiny --is_tuned False --output result.pt

Reads lines from standard input: `run` computes once and answers with the seconds, `memory` with the
peak of the resident memory in bytes; the end of the input ends it. `StockWorker` is the other side.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import nets
from benchmarks.harness import CLOCKS, Timed
from benchmarks.reference.unet import plain_twin
from utils.machine.threads import tune_allocator
from utils.script_util import flag, from_args, make_parser

ROOT = Path(__file__).resolve().parent.parent
_KIB = 1024


@dataclass(frozen=True)
class WorkerFlags:
    """What to compute, and how."""

    net: str = flag(nets.UPSAMPLER, "which network", nets.NETS)
    batch_size: int = flag(1, "images of a forward pass")
    is_plain: bool = flag(True, "the plain U-Net instead of the project's")
    is_tuned: bool = flag(False, "with the allocator tuned as the scripts do")
    threads: int = flag(1, "threads of torch")
    clock: str = flag("wall", "as of the benchmark", tuple(CLOCKS))
    output: str = flag("", "where the first result is written", is_path=True)


def inputs(model: torch.nn.Module, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Noisy images, timesteps, low-res images and labels for an upsampler; seeded."""
    side = model.config.image_size
    x = nets.noise(batch_size, 3, side, side)
    low_res = nets.noise(batch_size, 3, side // 4, side // 4, seed=1).clamp(-1, 1)
    t = torch.linspace(900, 100, batch_size).round().long()
    return x, t, low_res, torch.arange(batch_size)


class StockWorker:
    """The process, used as a context manager; it computes only when asked.

    Raises:
        RuntimeError: with what it printed, when it ends before it answers.
    """

    def __init__(self, flags: WorkerFlags) -> None:
        self._flags = flags
        words = [word for key, value in vars(flags).items() for word in (f"--{key}", str(value))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stock_worker", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> Timed:
        """One forward pass, by the worker's clock."""
        return Timed(float(self._ask("run")))

    def result(self, value: object = None) -> torch.Tensor:
        """What its first pass returned."""
        found: torch.Tensor = torch.load(self._flags.output, map_location="cpu", weights_only=True)
        return found

    def peak_bytes(self) -> int:
        """The most memory that it has held."""
        return int(self._ask("memory"))

    def _ask(self, question: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(question + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended with code {self._process.wait()}: {self._flags}")
        return str(json.loads(answer)["answer"])

    def __enter__(self) -> StockWorker:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main(argv: list[str] | None = None) -> int:
    """Answer until the input ends."""
    args: argparse.Namespace = make_parser(__doc__, worker=WorkerFlags).parse_args(argv)
    flags = from_args(WorkerFlags, args)
    torch.set_num_threads(flags.threads)
    if flags.is_tuned:
        tune_allocator()
    model: torch.nn.Module = nets.upsampler(flags.net)
    given = inputs(model, flags.batch_size)
    if flags.is_plain:
        model = plain_twin(model)
    is_first, clock = True, CLOCKS[flags.clock]
    for line in sys.stdin:
        answer: float = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        if line.strip() == "run":
            with torch.inference_mode():
                started = clock()
                result = model(*given)
                answer = clock() - started
            if is_first and flags.output:
                torch.save(result.clone(), flags.output)
            is_first = False
        print(json.dumps({"answer": answer}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
