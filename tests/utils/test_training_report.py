"""What a training says at its start, when it is stopped and when it diverges is true."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.ranks import run_ranks
from tests.utils.events import shown_steps
from tests.utils.training_loops import ConvNet, QuietLoop, training_loop, with_bad_label
from utils import dist_util
from utils.flags.groups import Precision
from utils.logger import RunLogger
from utils.loops.checkpoint import _digest
from utils.loops.networks import load_checked
from utils.process.errors import CheckpointError


class _Lines(RunLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(is_quiet=True)
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def _said(folder: Path | str, **changes: Any) -> str:
    """The lines of a training that runs to its end."""
    logger = _Lines()
    training_loop(folder, logger=logger, **changes).run_loop()
    return "\n".join(logger.lines)


# ---- divergence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("save_interval", [2, 1000])
def test_a_run_that_diverges_names_its_last_checkpoint_or_says_that_there_is_none(
    tmp_path: Path, dtype: torch.dtype, save_interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.train_util.MIN_LG_LOSS_SCALE", 15.0)
    data = with_bad_label(float("nan"), is_bad=lambda step: step >= 3)
    flags = {"max_step": 100, "max_bad_steps": 4, "log_interval": 1, "save_interval": save_interval}
    with pytest.raises(CheckpointError) as caught:
        training_loop(tmp_path, data=data, dtype=dtype, **flags).run_loop()
    if save_interval == 1000:
        assert "No checkpoint" in str(caught.value)
    else:
        named = max(tmp_path.glob("model*.pt"))
        assert f"checkpoint is {named}" in str(caught.value)


def test_without_a_folder_no_checkpoint_is_promised() -> None:
    data = with_bad_label(float("nan"), is_bad=lambda step: True)
    with pytest.raises(CheckpointError, match="No checkpoint"):
        training_loop(data=data, max_bad_steps=1, log_interval=1).run_loop()


# ---- stops


class _StoppedLoop(QuietLoop):
    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_stop_says_how_to_go_on_or_that_nothing_was_saved(
    tmp_path: Path, has_folder: bool
) -> None:
    folder = str(tmp_path / "there") if has_folder else ""
    said = _said(folder, loop_class=_StoppedLoop)
    assert "stopped at step 1" in said
    words = f"--resume_checkpoint auto --model_save_dir {folder}"
    assert (words in said) == has_folder
    assert ("nothing was saved" in said) == (not has_folder)


# ---- the batch of all processes


def test_a_resumed_run_says_that_its_batch_is_another(tmp_path: Path) -> None:
    assert "global batch" not in _said(tmp_path, max_step=2, batch_size=4)
    again = {"resume_checkpoint": "auto", "max_step": 3}
    assert "global batch" not in _said(tmp_path, **again, batch_size=4)
    said = _said(tmp_path, **again, batch_size=2)
    assert "batch is 2" in said and "was 4" in said and "--batch_size 2" in said


def test_the_batch_of_a_checkpoint_that_does_not_tell_it_follows_from_its_place(
    tmp_path: Path,
) -> None:
    _said(tmp_path, max_step=2, batch_size=4)
    path = tmp_path / "ckpt000002.json"
    content = json.loads(path.read_text())
    del content["state"]["global_batch"], content["sha256"]
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    assert "was 4" in _said(tmp_path, resume_checkpoint="auto", max_step=3, batch_size=2)


def _tell_start(say: Any, folder: Path) -> None:
    logger = _Lines()
    flags = {"batch_size": 2, "resume_checkpoint": "auto", "max_step": 3}
    training_loop(folder, logger=logger, **flags).run_loop()
    say("\n".join(logger.lines) if dist_util.is_main() else "")


@pytest.mark.dist
@pytest.mark.parametrize("before", [2, 4])
def test_processes_say_how_large_their_batch_is_together(tmp_path: Path, before: int) -> None:
    _said(tmp_path, max_step=1, batch_size=before)
    (said,), _ = run_ranks(_tell_start, tmp_path)
    assert "4 = 2 x 2" in said
    assert ("was 2" in said) == (before == 2)
    manifest = json.loads((tmp_path / "ckpt000003.json").read_text())
    assert manifest["state"]["global_batch"] == 4


# ---- TensorBoard


def _train_and_log(folder: Path, **flags: Any) -> None:
    logger = RunLogger(str(folder / "log"), is_quiet=True)
    training_loop(
        folder / "save", logger=logger, log_interval=1, save_interval=2, **flags
    ).run_loop()
    logger.close()


def test_steps_that_a_resumed_run_makes_anew_are_shown_once(tmp_path: Path) -> None:
    _train_and_log(tmp_path, max_step=4)
    assert shown_steps(tmp_path / "log", "loss") == [1, 2, 3, 4]
    for path in (tmp_path / "save").glob("*000004.*"):
        path.unlink()  # as if the run had been killed before it saved
    _train_and_log(tmp_path, max_step=5, resume_checkpoint="auto")
    assert shown_steps(tmp_path / "log", "loss") == [1, 2, 3, 4, 5]


def test_a_run_that_finds_nothing_to_resume_is_shown_from_its_first_step(tmp_path: Path) -> None:
    _train_and_log(tmp_path, max_step=3)
    for path in (tmp_path / "save").iterdir():
        path.unlink()
    _train_and_log(tmp_path, max_step=2, resume_checkpoint="auto")
    assert shown_steps(tmp_path / "log", "loss") == [1, 2]


# ---- what a network says of its flags


class _Outspoken(ConvNet):
    def notices(self) -> list[str]:
        return ["notice: --some_flag is without effect"]


def test_what_a_network_says_of_its_flags_is_said_by_its_training_alone(tmp_path: Path) -> None:
    said = _said(tmp_path, model=_Outspoken(), max_step=1)
    assert said.count("--some_flag") == 1
    lines: list[str] = []

    path = str(tmp_path / "model000001.pt")
    load_checked(_Outspoken, path, Precision.FP32, lines.append)
    assert lines and not any("--some_flag" in line for line in lines)
