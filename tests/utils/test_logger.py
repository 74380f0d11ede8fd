"""The log of a run: lines, means, TensorBoard events and ``args.json``."""

from __future__ import annotations

import argparse
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.utils.events import read_pictures, read_scalars
from tests.utils.training_loops import training_loop
from utils.flags.groups import Logged, ScriptFlags
from utils.logger import RunLogger
from utils.machine.launch import Launch
from utils.runs.start import describe_run, git_revision, started


def _lines(folder: Path) -> list[str]:
    """The lines of ``logs.txt`` without their times."""
    return [line.split(" ", 2)[2] for line in (folder / "logs.txt").read_text().splitlines()]


# ---- lines


def test_lines_are_printed_and_appended_run_after_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("first run", "second run"):
        logger = RunLogger(str(tmp_path))
        logger.info(line)
        logger.close()
    assert _lines(tmp_path) == ["first run", "second run"]
    assert capsys.readouterr().out == "first run\nsecond run\n"


def test_second_logger_of_a_folder_duplicates_no_line(tmp_path: Path) -> None:
    one, other = (RunLogger(str(tmp_path), is_quiet=True) for _ in range(2))
    one.info("a")
    other.info("b")
    one.info("c")
    assert _lines(tmp_path) == ["a", "b", "c"]


def test_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path), is_quiet=True)
    logger.info("about to be killed")
    assert _lines(tmp_path) == ["about to be killed"]


def test_silent_logger_prints_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logger = RunLogger(is_quiet=True)
    logger.info("a")
    logger.write_args({"a": 1})
    logger.scalars({"a": 1.0}, 1)
    logger.image("a", np.zeros((2, 2, 3), np.uint8), 1)
    logger.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


# ---- means


def test_mean_is_over_the_values_since_the_last_call() -> None:
    logger = RunLogger(is_quiet=True)
    for value in (1.0, torch.tensor(2.0), torch.tensor(6)):
        logger.add("loss", value)
    logger.add("norm", 5.0)
    keys, means = logger.take_means()
    assert dict(zip(keys, means.tolist(), strict=True)) == {"loss": 3.0, "norm": 5.0}
    logger.add("loss", 7.0)
    assert logger.take_means()[1].tolist() == [7.0]
    assert logger.take_means()[0] == []


def test_logged_tensor_is_neither_changed_nor_kept_with_its_graph() -> None:
    logger = RunLogger(is_quiet=True)
    weight = torch.ones(3, requires_grad=True)
    hidden = weight * 2
    loss = hidden.square().sum()
    for _ in range(2):
        logger.add("loss", loss)
    assert loss == 12
    saved = weakref.ref(hidden)  # the graph needs it for the backward pass
    del hidden
    assert saved() is not None
    del loss
    assert saved() is None
    _, means = logger.take_means()
    assert means.grad_fn is None and means.tolist() == [12.0]


def test_logged_tensor_may_be_overwritten_afterwards() -> None:
    logger = RunLogger(is_quiet=True)
    value = torch.tensor(1.0)
    logger.add("loss", value)
    value.fill_(100)
    assert logger.take_means()[1].tolist() == [1.0]


# ---- TensorBoard


def test_training_sends_the_promised_scalars_at_every_interval(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path), is_quiet=True)
    flags = {"max_step": 6, "log_interval": 2, "lr": 0.1, "lr_anneal_steps": 10}
    assert training_loop(logger=logger, dtype=torch.float16, **flags).run_loop()
    logger.close()
    found = read_scalars(tmp_path)
    names = {"loss", "grad_norm", "param_norm", "lr", "lg_loss_scale", "samples_per_second"}
    assert names <= found.keys()
    assert all(list(found[name]) == [2, 4, 6] for name in names)
    assert list(found["lr"].values()) == pytest.approx([0.09, 0.07, 0.05])
    assert all(value > 0 for value in found["samples_per_second"].values())
    assert found["lg_loss_scale"][2] == pytest.approx(19.5)  # 2^20 overflows, 2^19 is next


def test_picture_is_sent_as_it_is(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path), is_quiet=True)
    logger.image("strip", np.zeros((4, 9, 3), np.uint8), 7)
    logger.close()
    assert read_pictures(tmp_path) == {"strip": (7, 4, 9)}


def test_run_that_starts_again_at_once_keeps_the_events_of_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        logger = RunLogger(str(tmp_path), is_quiet=True)
        logger.scalars({"loss": 1.0}, step)
        logger.close()
    assert set(read_scalars(tmp_path)["loss"]) == {1, 2}


def test_folder_without_scalars_has_no_event_file(tmp_path: Path) -> None:
    RunLogger(str(tmp_path), is_quiet=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["logs.txt"]


# ---- args.json


def test_args_tell_everything_needed_to_repeat_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sr_mean_train.py", "--lr", "1e-3"])
    args = argparse.Namespace(lr=1e-3, log_dir="", seed=3, local_rank=0)
    with started(args, Logged(str(tmp_path))):  # settled by the script
        pass
    content = json.loads((tmp_path / "args.json").read_text())
    assert content["flags"] == {"lr": 1e-3, "log_dir": str(tmp_path), "seed": 3}
    assert content["command"][1:] == ["sr_mean_train.py", "--lr", "1e-3"]
    assert {"python", "torch", "numpy", "Pillow"} <= content["versions"].keys()
    assert content["versions"]["torch"] == torch.__version__
    assert content["world_size"] == 1
    assert content["device"].startswith("cpu") or content["device"].startswith("cuda")
    assert len(content["git_revision"]) == 40 or content["git_revision"] == "unknown"


def test_without_a_checkout_the_revision_is_that_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_REVISION", "of the image")
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert git_revision() == "of the image"
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\necho of the checkout\n", encoding="utf-8")
    git.chmod(0o755)
    assert git_revision() == "of the checkout"
    git.write_text("#!/bin/sh\nexit 128\n", encoding="utf-8")
    assert git_revision() == "of the image"
    monkeypatch.setenv("TOOLKIT_REVISION", "")
    assert git_revision() == "unknown"


def test_started_script_is_seeded(tmp_path: Path) -> None:
    draws = []
    for seed in (3, 3, 4):
        with started(argparse.Namespace(seed=seed), ScriptFlags(dry_run=True)):
            draws.append(torch.rand(2).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_dry_run_leaves_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with started(argparse.Namespace(seed=0), ScriptFlags(log_dir="log", dry_run=True)) as run:
        run.logger.info("said")
    assert list(tmp_path.iterdir()) == []


def test_package_that_is_not_installed_does_not_stop_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("utils.files.records._PACKAGES", ("torch", "no-such-package"))
    description = describe_run(argparse.Namespace(), torch.device("cpu"), Launch())
    assert description["versions"]["no-such-package"] == "not installed"
