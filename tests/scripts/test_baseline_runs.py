"""The baselines' scripts on the tiny data: train, resume, test, and the verification's verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_var.base_dataset import load_entries
from sr_var.flags.calibrate import CalibrateFlags
from sr_var.stored_flags import load_args
from sr_var.values import GREY_LEVELS
from sr_var.verify.read.images import load_net_result
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import REGRESSION_NET, TEST_NAMES, done, run, tree, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE
from utils.untrusted.pickles import load_array

OBJECTIVES = ["nll", "beta_nll", "quantile"]


def _train(pipeline: Pipeline, root: Path, **changes: Any) -> dict[str, Any]:
    flags = {"log_dir": root / "log", "model_save_dir": root / "save", "max_step": 3, **TRAINING}
    return {**REGRESSION_NET, **pipeline.data.train_flags, **flags, "lr": 0.01, **changes}


def _test(pipeline: Pipeline, root: Path, **changes: Any) -> dict[str, Any]:
    flags = {"log_dir": root / "log", "output_dir": root / "out", "batch_size": 2}
    flags["model_path"] = root / "save" / "model000003.pt"
    return {**pipeline.data.tested_flags, **flags, **changes}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_baseline_trains_and_its_results_are_verified_like_those_of_the_nets(
    pipeline: Pipeline, tmp_path: Path, objective: str
) -> None:
    done("sr_baseline_train", words(_train(pipeline, tmp_path, objective=objective)))
    assert load_args(tmp_path / "log" / "baseline_model_args.pkl")["objective"] == objective
    said = done("sr_baseline_test", words(_test(pipeline, tmp_path))).out  # flags as stored
    before = tree(tmp_path / "out")
    done("sr_baseline_test", words(_test(pipeline, tmp_path)))  # nothing is left to do
    assert tree(tmp_path / "out") == before
    for name in TEST_NAMES:
        folder = tmp_path / "out" / name
        assert load_array(folder / "high_res_var_3.pkl").min() >= 0
        if objective == "quantile":
            files = sorted(folder.glob("high_res_quantile_*_3.npy"))
            values = np.stack([np.load(file) for file in files])
            assert len(files) == 5 and (np.diff(values, axis=0) >= 0).all()
    assert ("level 0.75:" in said) == (objective == "quantile")
    steps = {"mean_model_step": 3, "var_model_step": 3, "sr_model_output_dir": tmp_path / "out"}
    flags = {**pipeline.verification_flags, **steps, "log_dir": tmp_path / "compare"}
    done("sr_var_verification", words(flags))
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    assert results["num_images"] == 3 and results["var"]["std_error"] > 0


@pytest.mark.parametrize("objective", ["nll", "quantile"])
def test_intervals_of_a_baseline_are_calibrated(
    pipeline: Pipeline, tmp_path: Path, objective: str
) -> None:
    done("sr_baseline_train", words(_train(pipeline, tmp_path, objective=objective)))
    done("sr_baseline_test", words(_test(pipeline, tmp_path)))
    verification = pipeline.verification_flags
    names = ("data_dir", "data_info_dict_path", "large_size")
    flags: dict[str, Any] = {name: str(verification[name]) for name in names}
    flags["large_size"] = int(flags["large_size"])
    flags |= {"sr_model_output_dir": tmp_path / "out", "mean_model_step": 3, "var_model_step": 3}
    flags |= {"output_dir": tmp_path / "made", "log_dir": tmp_path / "log_calibrate"}
    done("sr_calibrate", words({**flags, "level": 0.5}))
    made = json.loads((tmp_path / "made" / "calibration.json").read_text(encoding="utf-8"))
    of_results = CalibrateFlags(**{**flags, "sr_model_output_dir": str(tmp_path / "out")})
    outside = []
    for entry in load_entries(flags["data_info_dict_path"], flags["data_dir"]):
        result = load_net_result(entry, of_results, GREY_LEVELS)
        std = np.sqrt(np.maximum(result.variance, 1 / 12))
        outside.append((np.abs(result.high_res - result.mean) > made["factor"] * std).mean())
    # three images at 50 %: (3 R + 1) / 4 is at most a half
    assert np.mean(outside) == pytest.approx(made["found"]["risk"], abs=1e-6)
    assert 0 < made["found"]["risk"] <= 1 / 3


def test_exact_quantiles_are_figures_of_their_own(pipeline: Pipeline, tmp_path: Path) -> None:
    """The tiny photographs are not the oracle's, but its quantiles given them are defined."""
    changes = {"objective": "quantile", "quantiles": "0.5,0.9"}
    done("sr_baseline_train", words(_train(pipeline, tmp_path, **changes)))
    done("sr_baseline_test", words(_test(pipeline, tmp_path)))
    said = done("sr_baseline_test", words(_test(pipeline, tmp_path, truth="oracle"))).out
    assert "exact quantile" in said
    results = json.loads((tmp_path / "out" / "quantile_results_3.json").read_text())
    assert results["num_images"] == 3 and set(results["levels"]) == {"0.5", "0.9"}
    assert all(set(level) == {"coverage", "rms_error"} for level in results["levels"].values())


@pytest.mark.parametrize("objective", ["beta_nll", "quantile"])
def test_resumed_baseline_ends_with_the_same_weights(
    pipeline: Pipeline, tmp_path: Path, objective: str
) -> None:
    done("sr_baseline_train", words(_train(pipeline, tmp_path / "whole", objective=objective)))
    for max_step in (1, 3):
        changes = {"objective": objective, "max_step": max_step, "resume_checkpoint": "auto"}
        done("sr_baseline_train", words(_train(pipeline, tmp_path / "parts", **changes)))
    for file in ("model000003.pt", "opt000003.pt"):
        one, two = (
            torch.load(tmp_path / run_ / "save" / file, weights_only=True)
            for run_ in ("whole", "parts")
        )
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_stored_objective_wins_over_the_command_line(pipeline: Pipeline, tmp_path: Path) -> None:
    done("sr_baseline_train", words(_train(pipeline, tmp_path, objective="beta_nll", beta=0.25)))
    changes = {"resume_checkpoint": "auto", "max_step": 4, "objective": "nll"}
    said = done("sr_baseline_train", words(_train(pipeline, tmp_path, **changes))).out
    assert any("'beta_nll'" in line and "'nll'" in line for line in said.splitlines())


@pytest.mark.parametrize("script", ["sr_baseline_train", "sr_baseline_test"])
def test_dry_run_writes_nothing(pipeline: Pipeline, tmp_path: Path, script: str) -> None:
    if script == "sr_baseline_test":
        done("sr_baseline_train", words(_train(pipeline, tmp_path)))
    flags = {"sr_baseline_train": _train, "sr_baseline_test": _test}[script](pipeline, tmp_path)
    before = tree(tmp_path)
    assert "dry run" in done(script, words(flags, dry_run=True)).out
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"objective": "median"}, "'median'"),
        ({"quantiles": "0.9,0.1"}, "--quantiles '0.9,0.1'"),
        ({"beta": 2}, "--beta 2.0"),
        ({"last_layer_type": "none"}, "'none'"),
        ({"objectve": "nll"}, "--objective?"),
    ],
)
def test_impossible_flag_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    outcome = run("sr_baseline_train", words(_train(pipeline, tmp_path, **changes)))
    assert outcome.code == EXIT_USAGE and part in outcome.err
    assert tree(tmp_path) == {}


def test_checkpoint_of_another_kind_of_net_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    done("sr_baseline_train", words(_train(pipeline, tmp_path)))
    outcome = run(
        "sr_baseline_test", words(_test(pipeline, tmp_path), model_path=pipeline.mean_model)
    )
    assert outcome.code == EXIT_CHECKPOINT and "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()
