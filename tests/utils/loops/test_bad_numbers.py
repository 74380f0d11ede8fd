"""Losses and gradients that are not finite change nothing, and end a run that has too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import (
    QuietLoop,
    batch_of,
    relative_error,
    training_loop,
    weights_of,
    with_bad_label,
)
from utils.process.errors import CheckpointError


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_changes_nothing_and_is_counted(value: float) -> None:
    loop = training_loop(data=with_bad_label(value, is_bad=lambda step: True), ema_rate="0.5")
    before = weights_of(loop)
    for _ in range(3):
        loop.run_step(*next(loop.data))
    assert relative_error(weights_of(loop), before) == 0
    assert loop.mp_trainer.num_skipped == loop.mp_trainer.num_skipped_in_row == 3


def test_loss_that_is_not_finite_skips_the_update_even_if_its_gradient_is_finite() -> None:
    class Loop(QuietLoop):
        def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
            loss, output = super().compute_loss(micro_input, micro_label)
            return loss + float("inf"), output

    loop = training_loop(data=[batch_of(4)], loop_class=Loop)
    before = weights_of(loop)
    loop.run_step(*batch_of(4))
    assert relative_error(weights_of(loop), before) == 0
    assert loop.mp_trainer.num_skipped == 1


def test_single_bad_batch_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    data = with_bad_label(float("nan"), is_bad=lambda step: step == 1)
    loop = training_loop(tmp_path, data=data, max_bad_steps=2, log_interval=1, max_step=6)
    assert loop.run_loop()
    assert loop.mp_trainer.num_skipped == 1 and loop.mp_trainer.num_skipped_in_row == 0
    assert all(torch.isfinite(weight).all() for weight in weights_of(loop))


def test_run_of_bad_steps_ends_with_an_error_and_the_checkpoints_in_place(tmp_path: Path) -> None:
    data = with_bad_label(float("nan"), is_bad=lambda step: step >= 4)
    flags = {"max_step": 100, "max_bad_steps": 3, "save_interval": 2, "log_interval": 1}
    with pytest.raises(CheckpointError, match="step 7: 3 gradients"):
        training_loop(tmp_path, data=data, **flags).run_loop()
    resumed = training_loop(tmp_path, resume_checkpoint="auto", max_step=6)
    assert resumed.step == 6
    assert all(torch.isfinite(weight).all() for weight in weights_of(resumed))
