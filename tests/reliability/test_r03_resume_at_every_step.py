"""R3: N steps at once end with the bits of k + (N − k) steps, for every k."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline import Pipeline
from tests.reliability.extent import extent
from tests.scripts.runs import TRAININGS, flags_of
from tests.tiny import done, words
from tests.utils.training_loops import differences, saved_run, trained
from utils.flags.training import ADAM, ADAMW, MUON, SGD

NUM_STEPS = extent(6, 20)
NUM_STEPS_OF_SCRIPTS = extent(3, 8)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_resumed_run_equals_the_uninterrupted_one_wherever_it_was_cut(
    tmp_path: Path, figure: Callable[[str], None], dtype: torch.dtype, optimizer: str
) -> None:
    what: dict[str, Any] = {"dtype": dtype, "optimizer": optimizer}
    whole = trained(tmp_path / "whole", NUM_STEPS, **what)
    truth = saved_run(tmp_path / "whole", NUM_STEPS)
    assert {"model", "opt", "ema_0.5", "ema_0.9"} <= {name.split("/")[0] for name in truth}
    for k in range(1, NUM_STEPS):
        folder = tmp_path / f"cut{k}"
        first = trained(folder, k, **what)
        second = trained(folder, NUM_STEPS, **what, resume_checkpoint="auto")
        assert differences(saved_run(folder, NUM_STEPS), truth) == []
        assert first.data.seen + second.data.seen == whole.data.seen
    name = f"{str(dtype).removeprefix('torch.')} {optimizer}"
    figure(f"{name} equal for {NUM_STEPS - 1} of {NUM_STEPS - 1} k")


def test_run_cut_at_every_step_equals_the_uninterrupted_one(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    trained(tmp_path / "whole", NUM_STEPS, dtype=torch.float16)
    for step in range(1, NUM_STEPS + 1):
        trained(tmp_path / "cut", step, dtype=torch.float16, resume_checkpoint="auto")
    truth = saved_run(tmp_path / "whole", NUM_STEPS)
    assert differences(saved_run(tmp_path / "cut", NUM_STEPS), truth) == []
    figure(f"fp16 cut {NUM_STEPS - 1} times equal")


@pytest.mark.parametrize("script", TRAININGS[: extent(1, 3)])
def test_resumed_script_equals_the_uninterrupted_one_wherever_it_was_cut(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], script: str
) -> None:
    last = NUM_STEPS_OF_SCRIPTS
    rest: dict[str, Any] = {"resume_checkpoint": "auto", "lr_anneal_steps": 30, "ema_rate": "0.5"}

    def train(root: Path, max_step: int) -> None:
        done(script, words(flags_of(pipeline, script, root), **{**rest, "max_step": max_step}))

    train(tmp_path / "whole", last)
    truth = saved_run(tmp_path / "whole" / "save", last)
    assert {"model", "opt", "ema_0.5"} <= {name.split("/")[0] for name in truth}
    for k in range(1, last):
        train(tmp_path / f"cut{k}", k)
        train(tmp_path / f"cut{k}", last)
        assert differences(saved_run(tmp_path / f"cut{k}" / "save", last), truth) == []
    figure(f"{script}.py for {last - 1} of {last - 1} k")
