"""--var_npy: the variance as an array beside its pickle, made, kept and removed together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline import VAR_STEPS, Pipeline
from tests.tiny import REGRESSION_NET, TEST_NAMES, done, run, tree, words
from utils.process.errors import EXIT_USAGE
from utils.untrusted.pickles import load_array

ARRAY, PICKLE = f"high_res_var_{VAR_STEPS}.npy", f"high_res_var_{VAR_STEPS}.pkl"


def _assert_same(folder: Path, step: int) -> None:
    for name in TEST_NAMES:
        array = np.load(folder / name / f"high_res_var_{step}.npy", allow_pickle=False)
        stored = load_array(folder / name / f"high_res_var_{step}.pkl")
        assert array.dtype == np.float32 and array.std() > 0
        assert np.array_equal(array, stored)


def test_finished_images_get_the_array_when_it_is_asked_for(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    shutil.copytree(pipeline.nets_dir, tmp_path / "out")
    before = tree(tmp_path / "out")
    flags = {**pipeline.var_test_flags, "output_dir": tmp_path / "out", "batch_size": 2}
    done("sr_var_test", words(flags))
    assert tree(tmp_path / "out") == before  # nothing was to do, and there is no array
    done("sr_var_test", words(flags, var_npy=True))
    after = tree(tmp_path / "out")
    new = {f"{name}/{ARRAY}" for name in TEST_NAMES}
    assert after.keys() - before.keys() == new
    assert {name for name in before if after[name] != before[name]} <= {
        name for name in before if "seconds" in name
    }
    _assert_same(tmp_path / "out", VAR_STEPS)


def test_an_array_of_another_net_does_not_stay_beside_the_variance_of_this_one(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = {**pipeline.var_test_flags, "output_dir": tmp_path / "out", "batch_size": 2}
    done("sr_var_test", words(flags, var_npy=True))
    state = torch.load(pipeline.var_model, weights_only=True)
    state["out.2.bias"] += 0.25
    other = tmp_path / "var" / pipeline.var_model.name
    other.parent.mkdir()
    torch.save(state, other)
    done("sr_var_test", words(flags, model_path=other))
    left = tree(tmp_path / "out")
    assert not [name for name in left if name.endswith(ARRAY)]
    assert len([name for name in left if name.endswith(PICKLE)]) == len(TEST_NAMES)


def test_a_baseline_writes_it_too(pipeline: Pipeline, tmp_path: Path) -> None:
    places = {"log_dir": tmp_path / "log", "model_save_dir": tmp_path, "max_step": 1, "lr": 0.01}
    done("sr_baseline_train", words(REGRESSION_NET, pipeline.data.train_flags, places))
    flags = {"model_path": tmp_path / "model000001.pt", "output_dir": tmp_path / "out"}
    done("sr_baseline_test", words(pipeline.data.tested_flags, flags, log_dir=tmp_path / "log"))
    assert not list((tmp_path / "out").rglob("high_res_var_1.npy"))
    given = {**pipeline.data.tested_flags, **flags, "log_dir": tmp_path / "log"}
    done("sr_baseline_test", words(given, var_npy=True))
    _assert_same(tmp_path / "out", 1)


@pytest.mark.parametrize("functional", ["block:4", "pc:2"])
def test_variances_of_functionals_have_arrays_and_components_are_some(
    pipeline: Pipeline, tmp_path: Path, functional: str
) -> None:
    net = {"network": "subpixel", "large_size": 32, "small_size": 8, "model_channels": 8}
    net |= {"num_res_blocks": 1, "functional": functional, "last_layer_type": "none"}
    places = {"log_dir": tmp_path / "log", "model_save_dir": tmp_path, "max_step": 1, "lr": 0.01}
    data = pipeline.data
    done("sr_var_train", words(net, data.train_flags, pipeline.mean_net_flags, places))
    flags = {**data.tested_flags, **pipeline.mean_net_flags, "log_dir": tmp_path / "log"}
    flags |= {"model_path": tmp_path / "model000001.pt", "output_dir": tmp_path / "out"}
    outcome = run("sr_var_test", words(flags, var_npy=True))
    arrays = list((tmp_path / "out").rglob("functional_*_var_1.npy"))
    if functional == "pc:2":
        assert outcome.code == EXIT_USAGE and "--var_npy" in outcome.err and not arrays
    else:
        assert outcome.code == 0, outcome.err
        assert len(arrays) == len(TEST_NAMES)
        pickled = load_array(arrays[0].with_suffix(".pkl"))
        assert np.array_equal(np.load(arrays[0]), pickled) and pickled.shape[0] == 8
