"""What a run finds again after a stop; that its bits are the same is R3 of tests/reliability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import (
    ConvNet,
    QuietLoop,
    differences,
    read_manifest,
    saved_run,
    trained,
    training_loop,
)
from utils.flags.training import ADAMW, MUON
from utils.logger import RunLogger
from utils.loops.checkpoint import model_file_name
from utils.process.errors import CheckpointError

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class _CountingLoop(QuietLoop):
    """A task with a state of its own."""

    num_seen = 0

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        self.num_seen += 1

    def extra_state(self) -> dict[str, Any]:
        return {"num_seen": self.num_seen}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.num_seen = state.get("num_seen", 0)


def test_resume_in_the_middle_of_an_epoch_with_workers_keeps_the_order(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 4)
    first = trained(tmp_path / "cut", 2, num_workers=1)
    second = trained(tmp_path / "cut", 4, resume_checkpoint="auto")
    assert first.data.seen + second.data.seen == whole.data.seen
    truth = saved_run(tmp_path / "whole", 4)
    assert differences(saved_run(tmp_path / "cut", 4), truth) == []


def test_loss_scale_and_counts_of_skipped_steps_are_resumed(tmp_path: Path) -> None:
    first = trained(tmp_path, 3, dtype=torch.float16)
    assert first.mp_trainer.num_skipped > 0  # 2^20 is too much for these gradients
    second = training_loop(tmp_path, dtype=torch.float16, resume_checkpoint="auto", max_step=9)
    for name in ("lg_loss_scale", "num_skipped", "num_skipped_in_row"):
        assert torch.equal(getattr(second.mp_trainer, name), getattr(first.mp_trainer, name))


@pytest.mark.parametrize("first", [torch.float32, torch.bfloat16], ids=str)
def test_fp16_run_that_goes_on_from_another_precision_starts_with_a_large_scale(
    tmp_path: Path, first: torch.dtype
) -> None:
    trained(tmp_path, 2, dtype=first)
    loop = training_loop(tmp_path, dtype=torch.float16, resume_checkpoint="auto")
    assert loop.mp_trainer.lg_loss_scale == 20


def test_checkpoint_of_every_precision_is_fp32(tmp_path: Path) -> None:
    for dtype in DTYPES:
        trained(tmp_path / str(dtype), 1, dtype=dtype)
        run = saved_run(tmp_path / str(dtype), 1)
        tensors = [v for v in run.values() if isinstance(v, torch.Tensor)]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_frozen_parameters_and_buffers_are_resumed(tmp_path: Path) -> None:
    def net(value: float) -> torch.nn.Module:
        model = ConvNet()
        model.first.bias.requires_grad_(False).fill_(value)
        model.register_buffer("count", torch.tensor(int(value)))
        return model

    trained(tmp_path, 1, model=net(3.0))
    resumed = training_loop(tmp_path, model=net(0.0), resume_checkpoint="1", max_step=1)
    assert torch.equal(resumed.model.first.bias, torch.full((4,), 3.0))
    assert resumed.model.count == 3


def test_state_of_a_task_is_resumed(tmp_path: Path) -> None:
    trained(tmp_path, 2, loop_class=_CountingLoop)
    second = trained(tmp_path, 5, loop_class=_CountingLoop, resume_checkpoint="auto")
    assert second.num_seen == 5
    assert read_manifest(tmp_path, 5)["state"]["num_seen"] == 5


def test_flags_of_the_command_line_win_over_those_in_the_optimizer_file(tmp_path: Path) -> None:
    trained(tmp_path, 1, weight_decay=0.1)
    loop = trained(tmp_path, 2, weight_decay=0.0, resume_checkpoint="auto")
    assert [group["weight_decay"] for group in loop.mp_trainer.optimizer.param_groups] == [0.0]


def test_average_without_a_file_starts_at_the_weights_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, 2, ema_rate="")
    loop = training_loop(
        tmp_path, ema_rate="0.5", resume_checkpoint="auto", logger=RunLogger(), max_step=2
    )
    assert "rate 0.5" in capsys.readouterr().out
    (_, average), *_ = loop.state._averages.items()
    assert all(map(torch.equal, average, loop.mp_trainer.masters))


def test_run_without_steps_can_be_resumed(tmp_path: Path) -> None:
    trained(tmp_path, 0)
    assert trained(tmp_path, 1, resume_checkpoint="auto").step == 1


@pytest.mark.parametrize("change", ["shape", "second moment", "step", "nan", "list"])
def test_optimizer_state_of_another_model_is_refused(tmp_path: Path, change: str) -> None:
    trained(tmp_path, 1)
    (tmp_path / "ckpt000001.json").unlink()
    path = tmp_path / "opt000001.pt"
    content: Any = torch.load(path, weights_only=True)
    entry = content["state"][0]
    if change == "shape":
        content["state"] = {0: entry}
    elif change == "second moment":
        entry["exp_avg_sq"] = torch.zeros(2)
    elif change == "step":
        entry["step"] = torch.zeros(2)
    elif change == "nan":
        entry["exp_avg"][0] = float("nan")
    else:
        content = [1, 2]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"opt000001\.pt .*(optimizer|tensor)"):
        training_loop(tmp_path, resume_checkpoint="1")


@pytest.mark.parametrize("change", ["shape", "momentum", "nan", "entry"])
def test_damaged_state_of_muon_is_refused(tmp_path: Path, change: str) -> None:
    trained(tmp_path, 1, optimizer=MUON)
    (tmp_path / "ckpt000001.json").unlink()
    path = tmp_path / "opt000001.pt"
    content: Any = torch.load(path, weights_only=True)
    entry = content["state"][0]
    if change == "shape":
        entry["momentum_buffer"] = torch.zeros(2)
    elif change == "momentum":
        entry["exp_avg"] = entry.pop("momentum_buffer")
    elif change == "nan":
        entry["momentum_buffer"][0] = float("nan")
    else:
        content["state"][0] = 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"opt000001\.pt is no optimizer state"):
        training_loop(tmp_path, resume_checkpoint="1", optimizer=MUON)


@pytest.mark.parametrize(("first", "second"), [(ADAMW, MUON), (MUON, ADAMW)])
def test_run_of_the_other_optimizer_is_refused(tmp_path: Path, first: str, second: str) -> None:
    trained(tmp_path, 1, optimizer=first)
    with pytest.raises(
        CheckpointError, match=rf"opt000001\.pt .*--optimizer {first}, not {second}"
    ):
        training_loop(tmp_path, resume_checkpoint="auto", optimizer=second)
    # its weights alone are as good as any
    training_loop(tmp_path / "new", init_from=str(tmp_path / "model000001.pt"), optimizer=second)


def test_options_in_a_foreign_optimizer_file_do_not_reach_the_optimizer(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    (tmp_path / "ckpt000001.json").unlink()
    path = tmp_path / "opt000001.pt"
    content = torch.load(path, weights_only=True)
    content["param_groups"][0] |= {"maximize": True, "betas": (0.0, 0.0), "foreach": True}
    torch.save(content, path)
    loop = training_loop(tmp_path, resume_checkpoint="1")
    group = loop.mp_trainer.optimizer.param_groups[0]
    assert (group["maximize"], group["betas"], group["foreach"]) == (False, (0.9, 0.999), None)


# ---- fresh starts


@pytest.mark.parametrize("name", ["", "auto"])
def test_fresh_start_over_existing_checkpoints_is_refused(tmp_path: Path, name: str) -> None:
    trained(tmp_path, 2)
    if name == "auto":  # the only set there is, and it is damaged
        (tmp_path / model_file_name(2)).write_bytes(b"")
    message = "is intact; move them away" if name else "already holds checkpoints up to step 2"
    with pytest.raises(CheckpointError, match=message):
        training_loop(tmp_path, resume_checkpoint=name)


def test_dry_run_may_start_afresh_over_existing_checkpoints(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert training_loop(tmp_path, dry_run=True).run_loop()
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
