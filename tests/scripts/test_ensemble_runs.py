"""Several nets tested as one, by the scripts themselves, on the tiny data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.results.folder import epistemic_files
from tests.pipeline import TRAINING, Pipeline
from tests.scripts.runs import assert_refused, flags_of
from tests.tiny import REGRESSION_NET, TEST_NAMES, done, tree, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE
from utils.untrusted.pickles import load_array

RUNS = ("a", "b", "c")
MEAN, VAR = "model000003.pt", "model000002.pt"


@pytest.fixture(scope="module")
def nets(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three mean nets of their own seeds, and a variance net on each."""
    root = tmp_path_factory.mktemp("ensemble")
    for seed, run in enumerate(RUNS):
        shared = {**REGRESSION_NET, **pipeline.data.train_flags, **TRAINING, "seed": seed}
        for kind, steps in (("mean", 3), ("var", 2)):
            flags = {
                **shared,
                "lr": 0.01,
                "max_step": steps,
                "log_dir": root / f"log_{kind}_{run}",
                "model_save_dir": root / f"{kind}_{run}",
            }
            if kind == "var":
                flags |= {"last_layer_type": "exp", "mean_model_path": root / f"mean_{run}" / MEAN}
            done(f"sr_{kind}_train", words(flags))
    return root


def _mean(pipeline: Pipeline, nets: Path, output: Path, **changes: Any) -> str:
    flags = {**pipeline.data.tested_flags, "log_dir": nets / "log_mean_a", "output_dir": output}
    flags["model_path"] = nets / "mean_{run}" / MEAN
    return done("sr_mean_test", words(flags, **{"ensemble": "a,b,c", **changes})).out


def test_mean_is_the_average_and_the_variance_between_nets_stands_beside_it(
    pipeline: Pipeline, nets: Path, tmp_path: Path
) -> None:
    _mean(pipeline, nets, tmp_path / "all")
    for run in RUNS:
        _mean(pipeline, nets, tmp_path / run, ensemble="", model_path=nets / f"mean_{run}" / MEAN)
    picture, std_file, var_file = epistemic_files(3)
    for name in TEST_NAMES:
        means = np.stack([np.load(tmp_path / r / name / "high_res_mean_3.npy") for r in RUNS])
        folder = tmp_path / "all" / name
        # float32 grey levels, and their squares relative to a spread of some levels
        np.testing.assert_allclose(
            np.load(folder / "high_res_mean_3.npy"), means.mean(axis=0), atol=1e-3
        )
        variance = load_array(folder / var_file)
        np.testing.assert_allclose(variance, means.var(axis=0, ddof=1), rtol=1e-3, atol=1e-4)
        assert variance.mean() > 1e-3
        np.testing.assert_allclose(np.load(folder / std_file), np.sqrt(variance), rtol=1e-6)
        assert (folder / picture).exists()
        assert not (tmp_path / "a" / name / var_file).exists()
    stamp = json.loads((tmp_path / "all" / ".mean_3.json").read_text())
    assert len(stamp["models"]) == 3

    # finished images are kept; those of a single net take everything's place
    before = tree(tmp_path / "all")
    assert "removed" not in _mean(pipeline, nets, tmp_path / "all")
    assert tree(tmp_path / "all").keys() == before.keys()
    single = {"ensemble": "", "model_path": nets / "mean_b" / MEAN}
    assert "removed the results" in _mean(pipeline, nets, tmp_path / "all", **single)
    assert not list((tmp_path / "all").rglob("*epistemic*"))


def test_variance_is_the_mean_of_those_of_all_nets(
    pipeline: Pipeline, nets: Path, tmp_path: Path
) -> None:
    def test(output: Path, **changes: Any) -> None:
        flags = {
            **pipeline.data.tested_flags,
            "log_dir": nets / "log_var_a",
            "output_dir": output,
            "model_path": nets / "var_{run}" / VAR,
            "mean_model_path": nets / "mean_{run}" / MEAN,
            "mean_model_args_path": nets / "log_mean_{run}" / "mean_model_args.pkl",
            "ensemble": "a,b,c",
        }
        done("sr_var_test", words(flags, **changes))

    test(tmp_path / "all")
    for run in RUNS:
        test(
            tmp_path / run,
            ensemble="",
            model_path=nets / f"var_{run}" / VAR,
            mean_model_path=nets / f"mean_{run}" / MEAN,
            mean_model_args_path=nets / f"log_mean_{run}" / "mean_model_args.pkl",
        )
    for name in TEST_NAMES:
        file = f"{name}/high_res_var_2.pkl"
        single = np.stack([load_array(tmp_path / run / file) for run in RUNS])
        np.testing.assert_allclose(load_array(tmp_path / "all" / file), single.mean(0), rtol=1e-4)
    stamp = json.loads((tmp_path / "all" / ".var_2.json").read_text())
    assert len(stamp["models"]) == 6

    _mean(pipeline, nets, tmp_path / "all")
    judged = {
        **pipeline.verification_flags,
        "sr_model_output_dir": tmp_path / "all",
        "mean_model_step": 3,
        "var_model_step": 2,
        "log_dir": tmp_path / "log",
        "num_panels": -1,
    }
    said = done("sr_var_verification", words(judged)).out
    assert "mean std between the mean nets" in said
    section = json.loads((tmp_path / "log" / "results.json").read_text())["epistemic"]
    assert section["num_nets"] == 3 and section["mean_std"] > 0
    page = (tmp_path / "log" / "report.html").read_text(encoding="utf-8")
    assert "between-net (epistemic) spread, 3 mean nets" in page
    alone = {**judged, "num_samples": 0, "log_dir": tmp_path / "alone", "full_table": True}
    assert "3 mean nets" in done("sr_var_verification", words(alone)).out


def test_one_variance_net_can_stand_on_one_mean_net_of_all(
    pipeline: Pipeline, nets: Path, tmp_path: Path
) -> None:
    changes = {"ensemble": "a,b", "model_path": nets / "var_{run}" / VAR}
    changes |= {"mean_model_path": nets / "mean_a" / MEAN, "log_dir": nets / "log_var_a"}
    changes |= {"mean_model_args_path": nets / "log_mean_a" / "mean_model_args.pkl"}
    # which the net of run b was not trained on
    part = "var_b"
    assert_refused(pipeline, "sr_var_test", tmp_path, EXIT_CHECKPOINT, part, **changes)


def test_nets_of_other_flags_or_of_no_fold_end_with_exit_code_4(
    pipeline: Pipeline, nets: Path, tmp_path: Path
) -> None:
    flags = flags_of(pipeline, "sr_mean_train", tmp_path / "mean_x")
    done("sr_mean_train", words(flags, model_channels=16, model_save_dir=nets / "mean_x"))
    (nets / "mean_y").mkdir(exist_ok=True)
    (nets / "mean_y" / "model000001.pt").symlink_to(nets / "mean_a" / MEAN)
    refused = (pipeline, "sr_mean_test", tmp_path / "test", EXIT_CHECKPOINT)
    changes = {"model_path": nets / "mean_{run}" / "model000001.pt", "log_dir": nets / "log_mean_a"}
    assert_refused(*refused, "mean_x", **changes, ensemble="y,x")
    for fold, run in enumerate("ab"):
        (nets / f"mean_{fold}").symlink_to(nets / f"mean_{run}")
    pattern = {"model_path": nets / "mean_{fold}" / MEAN, "log_dir": nets / "log_mean_a"}
    assert_refused(*refused, "was trained on all images", **pattern, cross_fit=2)


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test"])
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"ensemble": "0"}, "--ensemble 0"),
        ({"ensemble": "0,1"}, "{run}"),
        ({"ensemble": "0,1", "cross_fit": 2}, "give one of them"),
        ({"model_path": "m_{run}.pt"}, "--ensemble"),
    ],
)
def test_flags_that_do_not_fit_are_usage_errors(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], part: str
) -> None:
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, part, **changes)
