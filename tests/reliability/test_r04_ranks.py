"""R4: stops on two ranks change no bit; another number of ranks keeps data order and losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.ranks import run_ranks
from tests.dist.trainings import Say, merged, train
from tests.reliability.extent import extent
from tests.utils.events import read_scalars
from tests.utils.training_loops import (
    EVERYTHING,
    differences,
    relative_error,
    saved_run,
    training_loop,
)
from utils import dist_util
from utils.flags.training import ADAMW, MUON

pytestmark = pytest.mark.dist

NUM_STEPS = extent(5, 12)
CHANGES = [(1, 2), (2, 1), (4, 2, 1)][: extent(2, 3)]
GLOBAL_BATCH = 8


def resume_everywhere(say: Say, folder: Path, flags: dict[str, Any]) -> None:
    """Trains without a stop, and once for every place where a run could have been cut."""
    training_loop(folder / "whole", max_step=NUM_STEPS, **flags).run_loop()
    for k in range(1, NUM_STEPS):
        training_loop(folder / f"cut{k}", max_step=k, **flags).run_loop()
        dist_util.barrier()
        resumed = {**flags, "resume_checkpoint": "auto", "max_step": NUM_STEPS}
        training_loop(folder / f"cut{k}", **resumed).run_loop()


@pytest.mark.parametrize(
    ("dtype", "optimizer"),
    [(torch.float32, ADAMW), (torch.float16, ADAMW), (torch.float32, MUON)],
    ids=str,
)
def test_resumed_run_on_two_ranks_equals_the_uninterrupted_one(
    tmp_path: Path, figure: Callable[[str], None], dtype: torch.dtype, optimizer: str
) -> None:
    flags = {**EVERYTHING, "dtype": dtype, "optimizer": optimizer}
    run_ranks(resume_everywhere, tmp_path, flags)
    truth = saved_run(tmp_path / "whole", NUM_STEPS)
    for k in range(1, NUM_STEPS):
        assert differences(saved_run(tmp_path / f"cut{k}", NUM_STEPS), truth) == []
    name = f"{str(dtype).removeprefix('torch.')} {optimizer}"
    figure(f"two ranks, {name}: equal for {NUM_STEPS - 1} of {NUM_STEPS - 1} k")


def _train_on(folder: Path, num_ranks: int, max_step: int) -> tuple[list[int], dict[int, float]]:
    """Goes on with the same global batch; the items in the order of the stream, the losses."""
    flags = {"resume_checkpoint": "auto", "log_interval": 1, "max_step": max_step}
    flags["batch_size"] = GLOBAL_BATCH // num_ranks
    if num_ranks > 1:
        said = run_ranks(train, folder, flags, world_size=num_ranks)
    else:
        said = [[]]
        train(said[0].append, folder, flags)
    losses = read_scalars(folder.with_name(f"{folder.name}_log"))["loss"]
    return merged(said, flags["batch_size"]), losses


@pytest.mark.parametrize("ranks", CHANGES, ids=str)
def test_run_goes_on_with_another_number_of_ranks(
    tmp_path: Path, figure: Callable[[str], None], ranks: tuple[int, ...]
) -> None:
    """The global batch is kept: same order of items, losses and weights up to rounding."""
    last = 2 * len(ranks) + 1
    seen, losses = _train_on(tmp_path / "whole", 1, last)
    seen_in_parts: list[int] = []
    losses_of_parts: dict[int, float] = {}
    for i, num_ranks in enumerate(ranks, start=1):
        stop = last if i == len(ranks) else 2 * i
        part = _train_on(tmp_path / "parts", num_ranks, stop)
        seen_in_parts, losses_of_parts = seen_in_parts + part[0], losses_of_parts | part[1]
    assert seen_in_parts == seen and len(seen) == GLOBAL_BATCH * last
    assert losses.keys() == losses_of_parts.keys() == set(range(1, last + 1))
    difference = max(abs(losses[step] - losses_of_parts[step]) for step in losses)
    assert difference < 1e-6
    found, truth = saved_run(tmp_path / "parts", last), saved_run(tmp_path / "whole", last)
    names = [name for name in truth if name.startswith("model/")]
    assert relative_error([found[n] for n in names], [truth[n] for n in names]) < 1e-6
    way = "→".join(map(str, ranks))
    figure(f"{way} ranks: same items, losses within {difference:.0e}")
