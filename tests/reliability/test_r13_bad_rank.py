"""R13: a loss that is not finite on one of two ranks updates neither, and ends both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.dist.trainings import train
from tests.utils.training_loops import QuietLoop, differences, saved_run, training_loop
from utils import dist_util
from utils.process.errors import EXIT_CHECKPOINT

pytestmark = pytest.mark.dist


class _BadRankLoop(QuietLoop):
    """From step 3 on the last rank has a loss that is not finite, with or without its gradient."""

    is_gradient_bad = True

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        loss, output = super().compute_loss(micro_input, micro_label)
        if self.step < 3 or dist_util.is_main():
            return loss, output
        return (loss * float("nan") if self.is_gradient_bad else loss + float("inf")), output


class _BadLossLoop(_BadRankLoop):
    is_gradient_bad = False


@pytest.mark.parametrize("loop_class", [_BadRankLoop, _BadLossLoop])
def test_bad_numbers_on_one_rank_skip_the_update_on_all_and_end_all(
    tmp_path: Path, figure: Callable[[str], None], loop_class: type[QuietLoop]
) -> None:
    flags = {"max_bad_steps": 3, "save_interval": 1, "log_interval": 1, "max_step": 20}
    children = start_ranks(train, tmp_path / "bad", {"loop_class": loop_class, **flags})
    codes = exit_codes(children)
    assert codes == [EXIT_CHECKPOINT, EXIT_CHECKPOINT]
    run_ranks(train, tmp_path / "good", {"max_step": 3})
    truth = saved_run(tmp_path / "good", 3)
    assert differences(saved_run(tmp_path / "bad", 3), truth) == []
    last = saved_run(tmp_path / "bad", 5)
    assert not (tmp_path / "bad" / "model000006.pt").exists()
    assert differences(last, truth) == ["state"] and last["state"]["num_skipped"] == 2
    assert training_loop(tmp_path / "bad", resume_checkpoint="auto", max_step=5).step == 5
    kind = "NaN with its gradient" if loop_class.is_gradient_bad else "infinite loss alone"
    figure(f"{kind}: no update on either rank, exit codes {codes}, last set kept")
