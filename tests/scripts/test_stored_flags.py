"""The flags stored with a run decide what is built when it is resumed or tested."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipeline import MEAN_STEPS, Pipeline
from tests.scripts.runs import TRAININGS, flags_of
from tests.tiny import REGRESSION_NET, TEST_NAMES, done, run, tree, words


def _train(pipeline: Pipeline, root: Path, **changes: Any) -> str:
    flags = {**flags_of(pipeline, "sr_mean_train", root), **changes}
    return done("sr_mean_train", words(flags)).out


def test_stored_flags_win_over_the_command_line_of_a_resumed_training(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    _train(pipeline, tmp_path)
    stored = (tmp_path / "log" / "mean_model_args.pkl").read_bytes()
    changes = {"model_channels": 16, "channel_mult": "1,2,2", "max_step": 2}
    said = _train(pipeline, tmp_path, resume_checkpoint="model000001.pt", **changes)
    line, _ = [line for line in said.splitlines() if "which differs" in line]
    # the sentence is held on purpose: stored flags win, and both are said
    assert "model_channels 8 (command line 16)" in line
    assert "channel_mult '1,2'" in line and "'1,2,2'" in line
    assert (tmp_path / "log" / "mean_model_args.pkl").read_bytes() == stored
    args = json.loads((tmp_path / "log" / "args.json").read_text())["flags"]
    assert args["model_channels"] == 8 and args["channel_mult"] == "1,2"  # after resolution
    assert (tmp_path / "save" / "model000002.pt").exists()


def test_stored_flags_win_over_the_command_line_of_a_test(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = flags_of(pipeline, "sr_mean_test", tmp_path)
    changes = {"large_size": 64, "small_size": 16, "model_channels": 32, "use_fp16": True}
    said = done("sr_mean_test", words(flags, **changes)).out
    line, *again = [line for line in said.splitlines() if "which differs" in line]
    assert "large_size 32" in line and "use_fp16 False" in line
    assert again == [line]  # a size is said at the end, too
    for name in TEST_NAMES:
        file = f"high_res_mean_{MEAN_STEPS}.npy"
        found, expected = (np.load(d / name / file) for d in (tmp_path / "out", pipeline.nets_dir))
        # the data have the stored sizes too; kernels round by batch size, measured 1.5e-5
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_a_new_run_from_weights_needs_no_model_flags(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "sr_mean_train", tmp_path)
    bare = {name: value for name, value in flags.items() if name not in REGRESSION_NET}
    said = done("sr_mean_train", words(bare, init_from=pipeline.mean_model)).out
    assert "flags that were left out are those of" in said and "--model_channels 8" in said
    found, expected = (
        pickle.loads((folder / "mean_model_args.pkl").read_bytes())
        for folder in (tmp_path / "log", pipeline.log_dir("sr_mean"))
    )
    assert found == expected
    # they may be given otherwise: then nothing fits
    other = {"init_from": pipeline.mean_model, "model_channels": 16, "log_dir": tmp_path / "other"}
    assert (
        run("sr_mean_train", words({**bare, "model_save_dir": tmp_path / "new", **other})).code == 4
    )


def test_flags_that_agree_are_not_mentioned(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "sr_mean_test", tmp_path)
    assert "which differs" not in done("sr_mean_test", words(flags, REGRESSION_NET)).out


def test_predict_residual_of_the_stored_flags_is_followed(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The mean is the low-res image plus a small correction, though no later command says so."""
    _train(pipeline, tmp_path, predict_residual=True)
    flags = {
        **pipeline.data.tested_flags,
        "log_dir": tmp_path / "log",
        "model_path": tmp_path / "save" / "model000001.pt",
        "output_dir": tmp_path / "nets",
    }
    done("sr_mean_test", words(flags))
    for name in TEST_NAMES:
        mean = np.load(tmp_path / "nets" / name / "high_res_mean_1.npy")
        low_res = np.asarray(Image.open(tmp_path / "nets" / name / "low_res.png")).astype(float)
        assert np.abs(mean - low_res).max() < 3  # one step of lr 1e-4 from a net that was zero
    var = {
        **flags_of(pipeline, "sr_var_train", tmp_path / "var"),
        "mean_model_path": flags["model_path"],
        "mean_model_args_path": tmp_path / "log" / "mean_model_args.pkl",
    }
    loss = _first_loss(done("sr_var_train", words(var)).out)
    plain = _first_loss(
        done("sr_var_train", words(flags_of(pipeline, "sr_var_train", tmp_path / "plain"))).out
    )
    # squared residuals of the bilinear image are far below those of a net that returns grey
    assert loss < plain / 2
    said = done("sr_mean_train", _resume(pipeline, tmp_path, predict_residual=False)).out
    assert "predict_residual True" in said


def _first_loss(said: str) -> float:
    (line,) = [line for line in said.splitlines() if line.startswith("step 1 |")]
    return float(line.split("loss ")[1].split(" ")[0])


def _resume(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    flags = flags_of(pipeline, "sr_mean_train", root)
    return words({**flags, "resume_checkpoint": "auto", "max_step": 2, **changes})


@pytest.mark.parametrize("script", TRAININGS)
def test_training_resumed_by_the_script_ends_with_the_same_weights(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    task = script.removesuffix("_train")
    flags = flags_of(pipeline, script, tmp_path)
    flags |= {"ema_rate": "0.9"} if task == "ddpm_sr" else {}
    flags |= {"last_layer_type": "exp"} if task == "sr_var" else {}
    for max_step in (1, 2):
        done(script, words({**flags, "max_step": max_step}, resume_checkpoint="auto"))
    expected = tree(pipeline.save_dir(task))
    for name in ("model000002.pt", "opt000002.pt", "ema_0.9_000002.pt"):
        path = tmp_path / "save" / name
        assert path.exists() == (name in expected)
        if path.exists():
            one = torch.load(path, weights_only=True)
            other = torch.load(pipeline.save_dir(task) / name, weights_only=True)
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_resume_without_stored_flags_takes_those_of_the_manifest(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    _train(pipeline, tmp_path)
    stored = (tmp_path / "log" / "mean_model_args.pkl").read_bytes()
    (tmp_path / "log" / "mean_model_args.pkl").unlink()
    assert "does not exist" in done("sr_mean_train", _resume(pipeline, tmp_path)).out
    assert (tmp_path / "log" / "mean_model_args.pkl").read_bytes() == stored


def test_resume_without_stored_flags_and_manifest_is_an_error(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    _train(pipeline, tmp_path)
    (tmp_path / "log" / "mean_model_args.pkl").unlink()
    (tmp_path / "save" / "ckpt000001.json").unlink()
    outcome = run("sr_mean_train", _resume(pipeline, tmp_path))
    assert outcome.code == 4 and "mean_model_args.pkl" in outcome.err


def test_slip_of_the_documents_in_the_path_of_the_mean_flags_is_forgiven(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """``logs/sr_mean/64_256mean_model_args.pkl`` lacks a slash."""
    flags = flags_of(pipeline, "sr_var_train", tmp_path)
    slip = f"{pipeline.log_dir('sr_mean')}mean_model_args.pkl"
    said = done("sr_var_train", words({**flags, "mean_model_args_path": slip})).out
    assert f"notice: {slip}" in said


def test_args_file_of_the_original_toolkit_is_read(pipeline: Pipeline, tmp_path: Path) -> None:
    """It lacks our flags and is of an older pickle protocol."""
    for protocol in (2, 3):
        log_dir = tmp_path / str(protocol)
        log_dir.mkdir()
        path = pipeline.log_dir("sr_mean") / "mean_model_args.pkl"
        flags = pickle.loads(path.read_bytes())
        assert not flags.keys() & {"predict_residual", "use_bf16"}
        (log_dir / "mean_model_args.pkl").write_bytes(pickle.dumps(flags, protocol=protocol))
        test = flags_of(pipeline, "sr_mean_test", tmp_path / f"out{protocol}")
        done("sr_mean_test", words({**test, "log_dir": log_dir}))


def test_results_of_a_finished_test_are_kept_and_those_of_other_weights_replaced(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = flags_of(pipeline, "sr_mean_test", tmp_path)
    shutil.copytree(pipeline.nets_dir, tmp_path / "out")
    file = tmp_path / "out" / TEST_NAMES[0] / f"high_res_mean_{MEAN_STEPS}.npy"
    time = file.stat().st_mtime_ns
    done("sr_mean_test", words(flags))
    assert file.stat().st_mtime_ns == time
    state = torch.load(pipeline.mean_model, weights_only=True)
    state["out.2.bias"] += 0.25
    other = tmp_path / "other" / f"model{MEAN_STEPS:06d}.pt"
    other.parent.mkdir()
    torch.save(state, other)
    before = np.load(file)
    done("sr_mean_test", words(flags, model_path=other))
    np.testing.assert_allclose(np.load(file) - before, 0.25 * 127.5, atol=1e-3)
    # the variance net's results have a stamp of their own
    assert list((tmp_path / "out" / TEST_NAMES[0]).glob("high_res_var_*.pkl"))
