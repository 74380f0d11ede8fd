"""``--act`` through the scripts: stored with the checkpoint, followed, and refused if another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.script_util import create_mean_model, create_sr_model, create_var_model
from tests.image_ddpm.tiny import NET, PROCESS, TRAINING, named_images, read_samples
from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import REGRESSION_NET, done, run, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE

FEW: dict[str, Any] = {"num_samples": 2, "batch_size": 2, "timestep_respacing": "2"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a denoiser with relu, after two steps."""
    root = tmp_path_factory.mktemp("act")
    own = {"data_dir": named_images(root / "images"), "log_dir": root / "log", "act": "relu"}
    done("image_train", words(NET, PROCESS, TRAINING, own, {"max_step": 1}))
    del own["act"]
    more = {"max_step": 2, "resume_checkpoint": "auto"}
    done("image_train", words(TRAINING, own, more))
    return root / "log" / "model000002.pt"


def _sample(model: Path, log_dir: Path, **more: Any) -> np.ndarray[Any, Any]:
    done("image_sample", words(FEW, {"model_path": model, "log_dir": log_dir}, more))
    found: np.ndarray[Any, Any] = read_samples(log_dir)["arr_0"]
    return found


def test_sampling_and_a_resumed_run_follow_the_checkpoint(model: Path, tmp_path: Path) -> None:
    manifest = json.loads((model.parent / "ckpt000002.json").read_text())
    assert manifest["network"]["flags"]["act"] == "relu"
    left_out = _sample(model, tmp_path / "left_out")
    assert np.array_equal(left_out, _sample(model, tmp_path / "given", act="relu"))


def test_another_one_is_refused(model: Path, tmp_path: Path) -> None:
    flags = words(FEW, {"model_path": model, "log_dir": tmp_path, "act": "gelu"})
    outcome = run("image_sample", flags)
    assert outcome.code == EXIT_CHECKPOINT
    assert "--act 'gelu'" in outcome.err and "'relu'" in outcome.err
    outcome = run("image_sample", words(FEW, {"model_path": model, "act": "tanh"}))
    assert outcome.code == EXIT_USAGE and "lrelu" in outcome.err


def test_a_mean_net_is_tested_with_that_of_its_training(pipeline: Pipeline, tmp_path: Path) -> None:
    train = flags_of(pipeline, "sr_mean_train", tmp_path)
    done("sr_mean_train", words({**train, "act": "gelu"}))
    stored = json.loads((tmp_path / "log" / "mean_model_args.json").read_text())
    assert stored["act"] == "gelu"
    own = {
        "log_dir": tmp_path / "log",
        "model_path": tmp_path / "save" / "model000001.pt",
        "output_dir": tmp_path / "out",
    }
    test = {**flags_of(pipeline, "sr_mean_test", tmp_path), **own}
    assert "act 'gelu'" in done("sr_mean_test", words({**test, "act": "silu"})).out


def test_every_unet_of_the_super_resolution_has_it() -> None:
    names = {**REGRESSION_NET, "act": "lrelu"}
    for create in (create_mean_model, create_var_model):
        assert create(**names).config.act == "lrelu"
    own = {key: value for key, value in names.items() if key != "model_channels"}
    assert create_sr_model(**own, num_channels=8, learn_sigma=False).config.act == "lrelu"
    with pytest.raises(ValueError, match="--act lrelu means nothing to --network subpixel"):
        create_mean_model(act="lrelu", network="subpixel", large_size=32, small_size=8)
