"""A flag that does nothing any more is still taken, said once, and changes no weight."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from tests.image_ddpm.tiny import NET, PROCESS, TRAINING, named_images
from tests.tiny import done, words
from utils.untrusted.state_dict import read_torch_file

SCRIPTS = [
    "classifier_train",
    "ddpm_sr_train",
    "image_train",
    "sr_baseline_test",
    "sr_baseline_train",
    "sr_mean_test",
    "sr_mean_train",
    "sr_var_test",
    "sr_var_train",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_fast_crop_is_taken_and_told(script: str) -> None:
    parser = importlib.import_module(script).create_parser()
    (line,) = parser.parse_args(["--fast_crop", "True"]).notices
    assert "--fast_crop does nothing any more" in line
    assert "notices" not in parser.parse_args([])


def test_fast_crop_changes_nothing(tmp_path: Path) -> None:
    """A run that was begun with it goes on without it."""
    common = {"data_dir": named_images(tmp_path / "images"), "random_crop": True}
    plain, other = tmp_path / "plain", tmp_path / "other"
    done("image_train", words(NET, PROCESS, TRAINING, common, log_dir=plain, max_step=3))
    start = words(NET, PROCESS, TRAINING, common, log_dir=other, max_step=2, fast_crop=True)
    assert done("image_train", start).out.count("--fast_crop does nothing any more") == 1
    assert json.loads((other / "args.json").read_text())["flags"]["fast_crop"] is True
    again = {"resume_checkpoint": "auto", "max_step": 3}
    assert "--fast_crop" not in done("image_train", [*start[:-4], *words(again)]).out
    one, two = (read_torch_file(str(path / "model000003.pt")) for path in (plain, other))
    assert all(torch.equal(one[key], two[key]) for key in one)
