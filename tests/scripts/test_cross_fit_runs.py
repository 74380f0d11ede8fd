"""Cross-fitting and the Itakura–Saito loss by the scripts themselves, on the tiny data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline import TRAINING, Pipeline
from tests.scripts.runs import assert_refused, flags_of
from tests.tiny import REGRESSION_NET, TEST_NAMES, done, run, words
from tests.utils.events import read_scalars
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE
from utils.untrusted.pickles import load_array

# --fold_by image puts 4 and 3 of the 7 training images into two folds
FOLDS = {"cross_fit": 2, "fold_by": "image"}


@pytest.fixture(scope="module")
def folded(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two mean nets that each left a fold out, as the flags of the variance scripts."""
    root = tmp_path_factory.mktemp("folded")
    for fold in range(2):
        flags = {
            **REGRESSION_NET,
            **pipeline.data.train_flags,
            **TRAINING,
            **FOLDS,
            "fold": fold,
            "lr": 0.01,
            "max_step": 3,
            "log_dir": root / f"log_{fold}",
            "model_save_dir": root / f"save_{fold}",
        }
        said = done("sr_mean_train", words(flags)).out
        assert any(f"fold {fold}" in line and "left out" in line for line in said.splitlines())
        manifest = json.loads((root / f"save_{fold}" / "ckpt000003.json").read_text())
        expected = {"num_folds": 2, "by": "image", "left_out": fold}
        assert manifest["state"]["cross_fit"] == expected
    return {
        **FOLDS,
        "mean_model_path": f"{root}/save_{{fold}}/model000003.pt",
        "mean_model_args_path": f"{root}/log_{{fold}}/mean_model_args.pkl",
    }


def _var_flags(pipeline: Pipeline, root: Path, **changes: Any) -> dict[str, Any]:
    return {**flags_of(pipeline, "sr_var_train", root), **changes}


def test_variance_net_trains_on_cross_fitted_residuals_and_tells_what_leaks(
    pipeline: Pipeline, folded: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"loss": "itakura_saito", "last_layer_type": "softplus", "max_step": 2}
    changes |= {"leakage_images": 8}
    flags = _var_flags(pipeline, tmp_path, **folded, **changes)
    said = done("sr_var_train", words(flags)).out
    assert (
        any("residuals" in line and "8 images" in line for line in said.splitlines())
        and "2 folds" in said
    )
    scalars = read_scalars(tmp_path / "log")
    figures = [scalars[f"cross_fit/{name}"][0] for name in ("in_fold", "out_of_fold", "ratio")]
    assert figures[0] > 0 and figures[2] == pytest.approx(figures[0] / figures[1], rel=1e-5)
    state = json.loads((tmp_path / "save" / "ckpt000002.json").read_text())["state"]
    assert state["loss"] == "itakura_saito"
    assert state["cross_fit"] == {"num_folds": 2, "by": "image", "left_out": None}

    again = {**flags, "resume_checkpoint": "auto", "max_step": 3}
    outcome = run("sr_var_train", words({**again, "loss": "squared_error"}))
    assert outcome.code == EXIT_CHECKPOINT and "'squared_error'" in outcome.err
    done("sr_var_train", words({**again, "leakage_images": 0}))

    test = {
        **pipeline.data.tested_flags,
        **folded,
        "log_dir": tmp_path / "log",
        "model_path": tmp_path / "save" / "model000003.pt",
    }
    done("sr_var_test", words({**test, "output_dir": tmp_path / "average"}))
    single = {**test, **pipeline.mean_net_flags, "cross_fit": 0, "output_dir": tmp_path / "single"}
    done("sr_var_test", words(single))
    for name in TEST_NAMES:
        variances = [
            load_array(tmp_path / kind / name / "high_res_var_3.pkl")
            for kind in ("average", "single")
        ]
        assert min(variance.min() for variance in variances) > 0
        assert not np.array_equal(*variances)  # their second input differs
    stamp = json.loads((tmp_path / "average" / ".var_3.json").read_text())
    assert len(stamp["models"]) == 3  # the variance net and both mean nets


def test_net_that_has_seen_its_fold_ends_with_exit_code_4(
    pipeline: Pipeline, folded: dict[str, Any], tmp_path: Path
) -> None:
    refused = (pipeline, "sr_var_train", tmp_path, EXIT_CHECKPOINT)
    part = "would be too small"
    assert_refused(*refused, part, **{**folded, "fold_by": "class"})
    assert_refused(*refused, part, **{**folded, "cross_fit": 3})


def test_net_trained_on_all_images_ends_with_exit_code_4(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pattern = str(pipeline.mean_model).replace("sr_mean/", "sr_mean{fold}/../sr_mean/")
    for fold in range(2):
        (pipeline.save_dir(f"sr_mean{fold}")).mkdir(exist_ok=True)
    changes = {**FOLDS, "mean_model_path": pattern}
    part = "all images"
    assert_refused(pipeline, "sr_var_train", tmp_path, EXIT_CHECKPOINT, part, **changes)


def test_fold_nets_without_cross_fit_are_refused_before_anything_is_built(
    pipeline: Pipeline, folded: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"mean_model_path": folded["mean_model_path"]}
    assert_refused(pipeline, "sr_var_train", tmp_path, EXIT_USAGE, "--cross_fit K", **changes)


@pytest.mark.parametrize(
    ("script", "changes", "part"),
    [
        ("sr_mean_train", {"cross_fit": 1}, "--cross_fit 1"),
        ("sr_mean_train", {"fold": 0}, "--fold 0"),
        ("sr_mean_train", {"cross_fit": 2}, "--fold -1"),
        ("sr_mean_train", {"cross_fit": 2, "fold": 2}, "--fold 2"),
        ("sr_mean_train", {"fold_by": "class"}, "--cross_fit K"),
        ("sr_var_train", {"cross_fit": 2}, "{fold}"),
        ("sr_var_test", {"cross_fit": 2}, "{fold}"),
        ("sr_var_train", {"leakage_images": -1}, "--leakage_images -1"),
        ("sr_var_train", {"loss": "absolute"}, "'absolute'"),
        ("sr_var_train", {"loss": "itakura_saito"}, "--last_layer_type softplus"),
    ],
)
def test_flags_that_contradict_each_other_are_usage_errors(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], part: str
) -> None:
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, part, **changes)
