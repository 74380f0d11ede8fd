"""The training loop: gradients, reporting, data, and when it ends."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.utils.training_loops import (
    ConvNet,
    QuietLoop,
    batch_of,
    image_pair,
    relative_error,
    steps_of_data,
    training_loop,
    weights_of,
)
from utils.logger import RunLogger
from utils.loops.checkpoint import CheckpointStore
from utils.loops.data import EpochOrder
from utils.process.errors import DataError

BATCH = 8


class _MeddlingLoop(QuietLoop):
    """Overwrites whatever it is shown, and draws random numbers."""

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        torch.rand(3)
        for tensor in (micro_input, micro_label, micro_output):
            tensor.fill_(1e3)


class _ForgettingLoop(QuietLoop):
    """Keeps a weak reference to the last loss and output."""

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        loss, output = super().compute_loss(micro_input, micro_label)
        self.refs = [weakref.ref(loss), weakref.ref(output)]
        return loss, output


def _one_step(microbatch: int, **changes: Any) -> QuietLoop:
    loop = training_loop(batch_size=BATCH, microbatch=microbatch, data=[batch_of(BATCH)], **changes)
    loop.run_step(*batch_of(BATCH))
    return loop


def _grads(loop: QuietLoop) -> list[torch.Tensor]:
    grads = [master.grad for master in loop.mp_trainer.masters]
    return [grad for grad in grads if grad is not None]


def _means(loop: QuietLoop) -> dict[str, float]:
    keys, means = loop.logger.take_means()
    return dict(zip(keys, means.tolist(), strict=True))


# ---- the gradient


@pytest.mark.parametrize("microbatch", [1, 2, 3, 7, BATCH, 100])
def test_update_does_not_depend_on_microbatch(microbatch: int) -> None:
    whole, sliced = _one_step(-1), _one_step(microbatch)
    assert relative_error(_grads(sliced), _grads(whole)) < 1e-6
    assert relative_error(weights_of(sliced), weights_of(whole)) < 1e-6
    truth, found = _means(whole), _means(sliced)
    assert found["grad_norm"] == pytest.approx(truth["grad_norm"], rel=1e-6)
    assert found["loss"] == pytest.approx(truth["loss"], rel=1e-6)


@pytest.mark.parametrize("microbatch", [-1, 3])
def test_gradient_and_loss_are_those_of_the_mean_over_the_batch(microbatch: int) -> None:
    model = ConvNet()
    x, y = batch_of(BATCH)
    loss = torch.nn.functional.mse_loss(model(x), y)
    truth = torch.autograd.grad(loss, list(model.parameters()))
    loop = _one_step(microbatch)
    assert relative_error(_grads(loop), list(truth)) < 1e-6
    means = _means(loop)
    norm = torch.linalg.vector_norm(torch.stack([grad.norm() for grad in truth]))
    assert means["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert means["grad_norm"] == pytest.approx(float(norm), rel=1e-6)


def test_post_process_cannot_change_the_weights_through_what_it_is_shown() -> None:
    def train(loop_class: type[QuietLoop]) -> QuietLoop:
        data = list(steps_of_data(3, BATCH))
        flags = {"batch_size": BATCH, "microbatch": 3, "dropout": 0.3, "max_step": 3}
        loop = training_loop(data=data, loop_class=loop_class, **flags)
        assert loop.run_loop()
        return loop

    honest, meddling = train(QuietLoop), train(_MeddlingLoop)
    for truth, found in zip(weights_of(honest), weights_of(meddling), strict=True):
        assert torch.equal(truth, found)


def test_post_process_sees_each_slice_of_the_batch_once_and_without_a_graph() -> None:
    shown: list[tuple[int, torch.Tensor]] = []

    class Loop(QuietLoop):
        def _post_process(
            self, micro_input: Any, micro_label: Any, micro_output: Any, i: int
        ) -> None:
            assert not torch.is_grad_enabled()
            shown.append((i, micro_input.clone()))

    _one_step(3, loop_class=Loop)
    assert [i for i, _ in shown] == [0, 1, 2]
    assert torch.equal(torch.cat([part for _, part in shown]), batch_of(BATCH)[0])


@pytest.mark.parametrize("log_interval", [1, 1000])
def test_weights_do_not_depend_on_logging(tmp_path: Path, log_interval: int) -> None:
    quiet = training_loop(dropout=0.3, log_interval=3)
    logger = RunLogger(str(tmp_path), is_quiet=True)
    loud = training_loop(dropout=0.3, log_interval=log_interval, logger=logger)
    assert quiet.run_loop() and loud.run_loop()
    assert relative_error(weights_of(loud), weights_of(quiet)) == 0


def test_dropout_is_on_whatever_mode_the_network_arrives_in() -> None:
    trained = training_loop(dropout=0.5)
    arrived_in_eval = training_loop(model=ConvNet(0.5).eval())
    assert trained.run_loop() and arrived_in_eval.run_loop()
    assert relative_error(weights_of(arrived_in_eval), weights_of(trained)) == 0


def test_same_seed_same_weights_and_another_seed_others() -> None:
    runs = [training_loop(dropout=0.3, seed=seed) for seed in (3, 3, 4)]
    assert all(loop.run_loop() for loop in runs)
    assert relative_error(weights_of(runs[1]), weights_of(runs[0])) == 0
    assert relative_error(weights_of(runs[2]), weights_of(runs[0])) > 1e-4


# ---- reporting


def test_logged_values_keep_no_graph() -> None:
    loop = training_loop(batch_size=BATCH, data=[batch_of(BATCH)], loop_class=_ForgettingLoop)
    loop.run_step(*batch_of(BATCH))
    assert [reference() for reference in loop.refs] == [None, None]
    _, means = loop.logger.take_means()
    assert means.grad_fn is None and not means.requires_grad


def test_every_interval_writes_one_line_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert training_loop(max_step=6, log_interval=2, logger=RunLogger()).run_loop()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split(" | ")[0] for line in lines] == ["step 2", "step 4", "step 6"]
    words = ["loss", "grad_norm", "param_norm", "samples_per_second"]
    assert [word for word in words if f" {word} " not in lines[0]] == []
    assert lines[0].endswith("min left")


def test_debug_mode_prints_parameter_count_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    training_loop(debug_mode=True, logger=RunLogger())
    said = capsys.readouterr().out
    assert "parameters: 0.00 M" in said and "no GPU in use" in said


def test_dry_run_reports_the_cost_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    assert training_loop(folder, dry_run=True, logger=RunLogger()).run_loop()
    said = capsys.readouterr().out
    parts = ["parameters:", "memory", "one step", "5 steps"]
    assert [part for part in parts if part not in said] == []
    assert os.listdir(tmp_path) == []


# ---- when it ends


def test_run_time_saves_once_and_stops(tmp_path: Path) -> None:
    assert training_loop(tmp_path, run_time=1e-9).run_loop() is False
    assert sorted(p.name for p in tmp_path.glob("model*")) == ["model000001.pt"]


def test_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    assert training_loop(tmp_path, max_step=3).run_loop()
    again = training_loop(tmp_path, max_step=3, resume_checkpoint="auto")
    assert again.run_loop() and again.data.seen == []


def test_folder_that_cannot_be_written_ends_the_run_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    loop = training_loop(tmp_path / "file" / "checkpoints")
    with pytest.raises(OSError, match=r"--model_save_dir .*file"):
        loop.run_loop()
    assert loop.data.seen == []


def test_remote_folder_is_written_to_without_a_lock_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CheckpointStore, "_steps", lambda self, pattern: [])
    saved: list[int] = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, step, *rest: saved.append(step))
    assert training_loop("gs://bucket/run", max_step=2, logger=RunLogger()).run_loop()
    assert saved == [2] and os.listdir(tmp_path) == []
    assert any(
        "second run" in line and "gs://bucket/run" in line
        for line in capsys.readouterr().out.splitlines()
    )


def test_finite_data_is_gone_through_again() -> None:
    loop = training_loop(batch_size=1, data=_pairs(range(3)), max_step=7)
    assert loop.run_loop() and loop.step == 7


def test_data_that_ends_and_cannot_start_again_is_an_error() -> None:
    loop = training_loop(batch_size=1, data=iter(_pairs(range(3))), max_step=7)
    with pytest.raises(DataError, match="no batch"):
        loop.run_loop()


def test_plain_iterable_resumes_where_the_run_stopped(tmp_path: Path) -> None:
    def train(folder: Path, max_step: int) -> QuietLoop:
        flags = {"resume_checkpoint": "auto", "max_step": max_step}
        loop = training_loop(folder, batch_size=1, data=_pairs(range(3)), **flags)
        assert loop.run_loop()
        return loop

    whole = train(tmp_path / "whole", 5)
    train(tmp_path / "parts", 2)
    assert relative_error(weights_of(train(tmp_path / "parts", 5)), weights_of(whole)) == 0


def _pairs(indices: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x[None], y[None]) for x, y in map(image_pair, indices)]


def test_learning_rate_falls_linearly_to_zero(capsys: pytest.CaptureFixture[str]) -> None:
    rates: list[float] = []

    class Loop(QuietLoop):
        def run_step(self, batch: Any, label: Any) -> None:
            super().run_step(batch, label)
            rates.append(self.mp_trainer.optimizer.param_groups[0]["lr"])

    assert training_loop(lr=0.1, lr_anneal_steps=4, loop_class=Loop).run_loop()
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0])


def test_epochs_are_gone_through_in_the_order_of_the_seed() -> None:
    loop = training_loop(batch_size=4, max_step=5, seed=9)
    assert loop.run_loop()
    order = EpochOrder(11, 9)
    expected = [*order.permutation(0), *order.permutation(1)][:20]
    assert loop.data.seen == expected


def test_unknown_flag_of_the_loop_is_an_error() -> None:
    with pytest.raises(TypeError, match="micro_batch"):
        training_loop(micro_batch=3)
