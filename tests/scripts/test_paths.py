"""``~`` is the home folder in every flag and variable that names a path, never a folder's name."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from image_ddpm.flags import LOGDIR_VARIABLE
from tests.image_ddpm.tiny import NET, PROCESS, TRAINING, named_images
from tests.tiny import ROOT, done, run, words
from utils.files.storage import make_folder
from utils.process.errors import EXIT_USAGE, StorageError
from utils.script_util import FlagParser

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py")) + ["slurms.submit"]
# flags of free text that is no path; a new flag that is one: flag(…, is_path=True)
WORDS = {
    *("after", "alphas", "attention_resolutions", "channel_mult", "ema_rate", "functional"),
    *("degradation", "degradation_level", "test_degradation"),
    *("label", "license"),
    *("classifier_attention_resolutions", "classifier_channel_mult", "hidden_dims", "labels"),
    *("net_channel_mult", "noise_types", "num_devices", "num_samples", "quantiles"),
    *("host", "sampling_steps", "steps", "test_folder", "timestep_respacing", "train_folder"),
    *("ensemble", "mean_module", "value_range", "pairs_value_range"),
}
# no folder of anybody
NOBODY = "~no body"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and a working directory to watch."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


class _Parsed(Exception):
    """Ends a script once its parser is made."""


def _parser(script: str, monkeypatch: pytest.MonkeyPatch) -> FlagParser:
    made: list[FlagParser] = []

    def stop(self: FlagParser, args: Any = None, namespace: Any = None) -> Any:
        made.append(self)
        raise _Parsed

    with monkeypatch.context() as patch, pytest.raises(_Parsed):
        patch.setattr(FlagParser, "parse_args", stop)
        importlib.import_module(script).main([])
    return made[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_that_are_no_text_keep_their_kind_whatever_they_are_called(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--use_checkpoint`` ends as ``--resume_checkpoint`` does."""
    parser = _parser(script, monkeypatch)
    switches = [action for action in parser._actions if action.metavar == "BOOL"]
    assert switches or script in ("slurms.submit", "noisy_label_sweep")
    for action in switches:
        for word, value in (("True", True), ("no", False), ("0", False)):
            args = parser.parse_args([action.option_strings[0], word])
            assert getattr(args, action.dest) is value


def _texts(parser: argparse.ArgumentParser) -> list[str]:
    """Names of the flags that take any text."""
    return [a.dest for a in parser._actions if a.metavar == "STR" and a.choices is None]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_path_of_every_script_may_start_at_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    parser = _parser(script, monkeypatch)
    for name in _texts(parser):
        value = getattr(parser.parse_args([f"--{name}", "x", f"--{name}=~/a/{{fold}}.pt"]), name)
        expected = "~/a/{fold}.pt" if name in WORDS else str(home / "a" / "{fold}.pt")
        assert value == expected, f"--{name}: is it a path?"
        assert getattr(parser.parse_args([f"--{name}", "a/~/$HOME"]), name) == "a/~/$HOME"


@pytest.mark.parametrize("script", SCRIPTS)
def test_home_of_nobody_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    parser = _parser(script, monkeypatch)
    for name in sorted(set(_texts(parser)) - WORDS):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args([f"--{name}", NOBODY])
        said = capsys.readouterr().err
        assert stop.value.code == EXIT_USAGE and f"--{name}" in said and f"./{NOBODY}" in said


def _train(data: str, **more: Any) -> list[str]:
    tail = {"sample_interval": 0, "max_step": 1, "data_dir": data, **more}
    return words(NET, PROCESS, TRAINING, tail)


def test_training_reads_and_writes_at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is named by a variable, too."""
    named_images(home / "images")
    done("image_train", _train("~/images", log_dir="~/flag", model_save_dir="~/saved"))
    assert (home / "flag" / "logs.txt").exists() and (home / "saved" / "model000001.pt").exists()
    monkeypatch.setenv(LOGDIR_VARIABLE, "~/variable")
    done("image_train", _train("~/images", resume_checkpoint="~/saved/model000001.pt", max_step=2))
    assert (home / "variable" / "model000002.pt").exists()
    assert list((home.parent / "here").iterdir()) == []


def test_variable_that_names_the_home_of_nobody_is_a_usage_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOGDIR_VARIABLE, NOBODY)
    outcome = run("image_train", _train(str(named_images(home / "images"))))
    assert outcome.code == EXIT_USAGE
    assert LOGDIR_VARIABLE in outcome.err and NOBODY in outcome.err
    assert list((home.parent / "here").iterdir()) == []


@pytest.mark.parametrize("folder", ["~", "~/runs", NOBODY])
def test_library_never_makes_a_folder_of_that_name(home: Path, folder: str) -> None:
    with pytest.raises(StorageError, match="~"):
        make_folder(folder, "--log_dir")
    make_folder("./~/wanted")
    assert os.listdir() == ["~"] and os.listdir("~") == ["wanted"]
