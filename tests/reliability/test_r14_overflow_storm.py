"""R14: an fp16 run that only overflows ends at the floor of the loss scale, with a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.utils.training_loops import training_loop, weights_of, with_bad_label
from utils.process.errors import CheckpointError


@pytest.mark.parametrize("log_interval", [1, 50])
def test_fp16_overflow_storm_ends_at_the_floor_of_the_scale(
    figure: Callable[[str], None], log_interval: int
) -> None:
    data = with_bad_label(float("inf"), is_bad=lambda step: step >= 2)
    loop = training_loop(
        data=data, dtype=torch.float16, max_step=200, log_interval=log_interval, max_bad_steps=5
    )
    with pytest.raises(CheckpointError, match=r"2\^-10"):
        loop.run_loop()
    assert loop.step <= 2 + 30 + log_interval
    assert all(torch.isfinite(weight).all() for weight in weights_of(loop))
    figure(f"--log_interval {log_interval}: ended at step {loop.step}, weights finite")
