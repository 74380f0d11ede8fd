"""A training step of the noisy-label task: how long data, network and optimizer take.

    python -m benchmarks.noisy_labels --num_steps 100

Medians of interleaved steps in one process, one thread: the net as it is made, channels last (what
the task uses), and compiled. Images are random: their content costs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from models.cnn import SmallCNN
from noisy_label.tasks import TensorBatches
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main

NUM_IMAGES, BATCH_SIZE = 60_000, 128


def make_step(model: torch.nn.Module) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch: torch.Tensor, label: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), label).backward()
        optimizer.step()

    return step


def timed(function: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


def measure(num_steps: int, *, has_compiled: bool) -> dict[str, float]:
    """Median milliseconds of each part."""
    inputs = torch.rand(NUM_IMAGES, 1, 28, 28)
    labels = torch.randint(0, 10, (NUM_IMAGES,))
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = TensorBatches(
        inputs, labels, BATCH_SIZE, 0
    ).batches(0)
    moved = TensorBatches(inputs, labels, BATCH_SIZE, 0, max_shift=2).batches(0)
    steps = {
        "step, plain": make_step(SmallCNN()),
        "step, channels last": make_step(SmallCNN().to(memory_format=torch.channels_last)),
    }
    if has_compiled:
        steps["step, compiled"] = make_step(torch.compile(SmallCNN()))  # type: ignore[arg-type]
    times: dict[str, list[float]] = {name: [] for name in ("data", "data, shifted", *steps)}
    for number in range(num_steps + 5):
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        data = timed(lambda: found.append(next(batches)))  # noqa: B023 - called at once
        shifted = timed(lambda: next(moved))
        parts = {name: timed(lambda: step(*found[0])) for name, step in steps.items()}  # noqa: B023
        if number >= 5:  # the first ones warm up, and compile
            for name, value in {"data": data, "data, shifted": shifted, **parts}.items():
                times[name].append(value)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_steps", type=int, default=100)
    parser.add_argument("--compile", action="store_true", help="half a minute more")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    found = measure(args.num_steps, has_compiled=args.compile)
    for name, value in found.items():
        print(f"{name:<22}{value:8.2f} ms")
    hours = 20_000 * (found["data"] + found["step, channels last"]) / 3.6e6
    share = found["data"] / found["step, channels last"]
    print(f"20 000 steps of {BATCH_SIZE}: {hours:.2f} h; data take {share:.1%} of a step's time")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
