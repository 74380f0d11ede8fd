"""The trainings with validation: the same weights as without, curves, the best checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.processes import run_script_together
from tests.scripts.runs import assert_refused, flags_of
from tests.tiny import REGRESSION_NET, done, run, words
from tests.utils.events import read_scalars
from tests.utils.training_loops import differences, saved_run
from utils.process.errors import EXIT_DATA, EXIT_USAGE

NLL = {"objective": "nll", "last_layer_type": "exp"}
QUANTILE = {"objective": "quantile", "quantiles": "0.1,0.5,0.9"}
BETA = {"objective": "beta_nll"}
# script, flags of its own, metrics in TensorBoard, what the best is the best by
RUNS: list[tuple[str, dict[str, Any], set[str], str]] = [
    ("sr_mean_train", {}, {"loss", "psnr"}, "loss"),
    ("sr_var_train", {"last_layer_type": "exp"}, {"loss", "z2", "nll"}, "loss"),
    ("sr_baseline_train", NLL, {"loss", "psnr", "z2", "nll"}, "loss"),
    ("sr_baseline_train", BETA, {"loss", "psnr", "z2", "nll"}, "nll"),
    ("sr_baseline_train", QUANTILE, {"loss", "psnr", "coverage"}, "loss"),
]


def _flags(pipeline: Pipeline, script: str, root: Path) -> dict[str, Any]:
    if script != "sr_baseline_train":
        return flags_of(pipeline, script, root)
    mean = flags_of(pipeline, "sr_mean_train", root)
    return {**REGRESSION_NET, **mean}


@pytest.mark.parametrize(("script", "own", "keys", "criterion"), RUNS)
def test_curves_and_the_best_are_there_and_the_weights_are_the_same(
    pipeline: Pipeline,
    tmp_path: Path,
    script: str,
    own: dict[str, Any],
    keys: set[str],
    criterion: str,
) -> None:
    steps = {"max_step": 4, "save_interval": 2, "dropout": 0.2, **own}
    check = {"val_data_info_dict_path": pipeline.data.test_info, "val_interval": 1}
    for name, more in (("without", {}), ("with", check)):
        done(script, words({**_flags(pipeline, script, tmp_path / name), **steps, **more}))
    one, two = (saved_run(tmp_path / name / "save", 4) for name in ("without", "with"))
    del two["state"]["best"], two["state"]["validation"]
    assert differences(one, two) == []
    found = read_scalars(tmp_path / "with" / "log")
    curves = {key for key in found if key.startswith("val/")}
    assert curves == {f"val/{key}" for key in keys}
    assert found["val/loss"].keys() == {1, 2, 3, 4}
    best = json.loads((tmp_path / "with" / "save" / "best.json").read_text())
    assert best["metric"] == criterion and best["step"] in (2, 4)
    curve = found[f"val/{criterion}"]
    assert best["value"] == pytest.approx(min(curve[2], curve[4]), rel=1e-6)
    assert (tmp_path / "with" / "save" / best["model"]).is_file()


@pytest.mark.dist
def test_two_processes_validate_together(pipeline: Pipeline, tmp_path: Path) -> None:
    check = {"val_data_info_dict_path": pipeline.data.test_info, "val_interval": 1}
    for name, more in (("without", {}), ("with", check)):
        flags = {**flags_of(pipeline, "sr_mean_train", tmp_path / name), "batch_size": 1, **more}
        run_script_together("sr_mean_train", words(flags))
    one, two = (saved_run(tmp_path / name / "save", 1) for name in ("without", "with"))
    del two["state"]["best"], two["state"]["validation"]
    assert differences(one, two) == []


def test_a_variance_net_says_that_its_mean_net_has_seen_the_validation(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    share = {"val_share": 0.4, "batch_size": 1}
    flags = flags_of(pipeline, "sr_var_train", tmp_path / "seen")
    assert "--val_share" in done("sr_var_train", words({**flags, **share})).out.split("sha256")[0]
    mean = flags_of(pipeline, "sr_mean_train", tmp_path / "mean")
    done("sr_mean_train", words({**mean, **share}))
    flags = flags_of(pipeline, "sr_var_train", tmp_path / "unseen")
    model = {"mean_model_path": tmp_path / "mean" / "save" / "model000001.pt"}
    model["mean_model_args_path"] = tmp_path / "mean" / "log" / "mean_model_args.pkl"
    said = done("sr_var_train", words({**flags, **share, **model})).out
    assert "--val_share" not in said.split("sha256")[0]


def test_a_resumed_run_must_leave_the_same_share_out(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = {**flags_of(pipeline, "sr_mean_train", tmp_path), "batch_size": 1}
    done("sr_mean_train", words(flags))
    again = {**flags, "resume_checkpoint": "auto", "max_step": 2, "val_share": 0.4}
    outcome = run("sr_mean_train", words(again))
    assert outcome.code == EXIT_DATA and "another list of images" in outcome.err


@pytest.mark.parametrize(
    ("code", "part", "flags"),
    [
        (EXIT_USAGE, "--val_interval", {"val_interval": 5}),
        (EXIT_USAGE, "--val_share", {"val_share": 2}),
        (EXIT_DATA, "--val_data_info_dict_path", {"val_data_info_dict_path": "no/such.pkl"}),
    ],
)
def test_bad_flags_are_refused_in_one_line(
    pipeline: Pipeline, tmp_path: Path, code: int, part: str, flags: dict[str, Any]
) -> None:
    assert_refused(pipeline, "sr_mean_train", tmp_path, code, part, **flags)


def test_images_that_are_trained_on_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    train_info = {"val_data_info_dict_path": pipeline.data.train_info}
    assert_refused(pipeline, "sr_mean_train", tmp_path, EXIT_DATA, "trained on", **train_info)
