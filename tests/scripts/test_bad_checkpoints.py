"""Bad checkpoints: one line that says what is there and what is wrong, and exit code 4."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_var.script_util import create_mean_model
from tests.pipeline import Pipeline
from tests.scripts.runs import TRAININGS, assert_refused, flags_of
from tests.tiny import REGRESSION_NET, done, run, save_weights, tree, words
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test", "ddpm_sr_sample"])
def test_missing_checkpoint_lists_what_is_there(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    path = {
        "sr_mean_test": pipeline.mean_model,
        "sr_var_test": pipeline.var_model,
        "ddpm_sr_sample": pipeline.ddpm_model,
    }[script]
    wanted = path.parent / "model090000.pt"
    parts = (f"{wanted} does not exist", path.name)
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, model_path=wanted)


@pytest.mark.parametrize("script", TRAININGS)
def test_checkpoint_to_resume_that_is_missing_is_no_silent_restart(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    task = {"sr_mean_train": "sr_mean", "sr_var_train": "sr_var"}.get(script, "ddpm_sr")
    changes = {"model_save_dir": pipeline.save_dir(task), "log_dir": pipeline.log_dir(task)}
    before = tree(pipeline.save_dir(task))
    outcome = run(
        script,
        words(
            flags_of(pipeline, script, tmp_path),
            **{**changes, "resume_checkpoint": "model090000.pt"},
        ),
    )
    assert outcome.code == EXIT_CHECKPOINT
    assert "model090000.pt" in outcome.err and "model000002.pt" in outcome.err
    assert tree(pipeline.save_dir(task)) == before


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test"])
def test_missing_model_flags_say_who_writes_them(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("model_args.pkl", "the training")
    model = pipeline.mean_model if script == "sr_mean_test" else pipeline.var_model
    single_process = tmp_path / model.name  # a manifest would tell them
    single_process.write_bytes(model.read_bytes())
    changes = {"log_dir": tmp_path / "log", "model_path": single_process}
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **changes)


@pytest.mark.parametrize("script", ["sr_var_train", "sr_var_test"])
def test_variance_without_a_mean_net_is_a_checkpoint_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("--mean_model_path is empty",)
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, mean_model_path="")
    parts = ("does not exist",)
    missing = tmp_path / "none.pkl"
    assert_refused(
        pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, mean_model_args_path=missing
    )
    parts = (f"{tmp_path} is a folder; name the file", f"{tmp_path}/mean_model_args.pkl")
    assert_refused(
        pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, mean_model_args_path=tmp_path
    )


def test_mean_net_of_other_sizes_is_a_checkpoint_error(pipeline: Pipeline, tmp_path: Path) -> None:
    parts = (
        "8 → 32",
        "16 → 32",
    )
    assert_refused(pipeline, "sr_var_train", tmp_path, EXIT_CHECKPOINT, *parts, small_size=16)


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        ("ddpm_sr_sample", {"num_channels": 16}),
        ("ddpm_sr_sample", {"class_cond": False}),
        ("ddpm_sr_sample", {"learn_sigma": False}),
        ("ddpm_sr_sample", {"channel_mult": "1,2,2"}),
    ],
)
def test_checkpoint_of_another_network_lists_the_keys_that_differ(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any]
) -> None:
    single_process = tmp_path / "model.pt"  # a manifest would tell the flags that differ
    single_process.write_bytes(pipeline.ddpm_model.read_bytes())
    parts = (str(single_process), "does not fit")
    changes = {**changes, "model_path": single_process}
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **changes)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "empty", "hostile", "nan"])
def test_damaged_checkpoint_is_refused_without_side_effect(
    pipeline: Pipeline, tmp_path: Path, kind: str
) -> None:
    content, path = bytearray(pipeline.mean_model.read_bytes()), tmp_path / "model000004.pt"
    marker = tmp_path / "marker"
    if kind == "truncated":
        content = content[: len(content) // 2]
    elif kind == "flipped":
        content[len(content) // 2] ^= 1
    elif kind == "empty":
        content = bytearray()
    elif kind == "hostile":
        command = f"touch {shlex.quote(str(marker))}"
        content = bytearray(f'cos\nsystem\n(S"{command}"\ntR.'.encode())
    path.write_bytes(content)
    if kind == "nan":
        state = torch.load(pipeline.mean_model, weights_only=True)
        next(iter(state.values())).fill_(float("nan"))
        torch.save(state, path)
    parts = (str(path),)
    assert_refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, model_path=path)
    assert not marker.exists()


def test_result_of_an_unnumbered_checkpoint_has_no_name(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pipeline.mean_model.read_bytes())
    parts = (str(path), "no step")
    assert_refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, model_path=path)


def test_sampler_takes_checkpoints_of_any_name(pipeline: Pipeline, tmp_path: Path) -> None:
    """OpenAI's are called 64_256_upsampler.pt; an average is ema_0.9_000002.pt."""
    state = torch.load(pipeline.ddpm_model, weights_only=True)
    path = tmp_path / "64_256_upsampler.pt"
    torch.save(state, path)
    average = pipeline.save_dir("ddpm_sr") / "ema_0.9_000002.pt"
    for model_path in (path, average):
        flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path / model_path.stem)
        flags |= {"num_samples_per_image": 1, "model_path": model_path}
        outcome = run("ddpm_sr_sample", words(flags))
        assert outcome.code == 0, outcome.err


def test_training_into_the_folder_of_another_run_isassert_refused(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    before = tree(pipeline.save_dir("sr_mean"))
    parts = ("already holds checkpoints", "--resume_checkpoint auto")
    folder = pipeline.save_dir("sr_mean")
    assert_refused(
        pipeline, "sr_mean_train", tmp_path, EXIT_CHECKPOINT, *parts, model_save_dir=folder
    )
    assert tree(folder) == before


def test_weights_of_another_tool_are_tested_with_a_notice(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """A bare state_dict without manifest loads; only its CRC can be checked."""
    path = save_weights(create_mean_model(**REGRESSION_NET), tmp_path / "theirs" / "model000001.pt")
    outcome = run(
        "sr_mean_test", words(flags_of(pipeline, "sr_mean_test", tmp_path), model_path=path)
    )
    assert outcome.code == 0, outcome.err
    assert "no manifest" in outcome.out


def test_weights_of_a_wrapped_network_are_tested_with_a_notice(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    state = torch.load(pipeline.mean_model, weights_only=True)
    path = tmp_path / "theirs" / "model000001.pt"
    path.parent.mkdir()
    torch.save({f"module._orig_mod.{name}": value for name, value in state.items()}, path)
    outcome = run(
        "sr_mean_test", words(flags_of(pipeline, "sr_mean_test", tmp_path), model_path=path)
    )
    assert outcome.code == 0, outcome.err
    assert any(
        f"{path}" in line and "'module._orig_mod.'" in line for line in outcome.out.splitlines()
    )


def test_a_checkpoint_with_more_than_weights_says_where_they_are(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    state = torch.load(pipeline.mean_model, weights_only=True)
    path = tmp_path / "model000001.pt"
    torch.save({"state_dict": state, "epoch": 3}, path)
    parts = (str(path), f'["state_dict"] ({len(state)} tensors)', "python -c")
    assert_refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, model_path=path)


@pytest.mark.parametrize(
    ("value", "said"),
    [("", "--model_path is empty"), ("folder", "is a folder"), ("4", "does not exist")],
)
def test_what_is_no_checkpoint_is_said_before_a_step_is_missed(
    pipeline: Pipeline, tmp_path: Path, value: str, said: str
) -> None:
    path = pipeline.mean_model.parent if value == "folder" else value
    assert_refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, said, model_path=path)


def test_new_run_from_a_net_of_another_class_names_its_file(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    parts = (str(pipeline.mean_model), "does not fit")
    changes = {"init_from": pipeline.mean_model}
    assert_refused(pipeline, "sr_var_train", tmp_path, EXIT_CHECKPOINT, *parts, **changes)


@pytest.mark.parametrize("script", TRAININGS)
def test_run_of_muon_goes_on_under_muon_alone(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    flags = {**flags_of(pipeline, script, tmp_path), "resume_checkpoint": "auto"}
    done(script, words(flags, optimizer="muon"))
    outcome = run(script, words(flags, max_step=2))
    assert outcome.code == EXIT_CHECKPOINT
    assert "opt000001.pt was written with --optimizer muon" in outcome.err
    done(script, words(flags, max_step=2, optimizer="muon"))


def test_torch_without_muon_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    parts = ("--optimizer muon needs torch.optim.Muon",)
    assert_refused(pipeline, "sr_mean_train", tmp_path, EXIT_USAGE, *parts, optimizer="muon")


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("sr_mean_test", ["model_path"]),
        ("sr_baseline_test", ["model_path"]),
        ("sr_predict", ["mean_model_path", "var_model_path"]),
        ("ddpm_sr_sample", ["model_path"]),
        ("sr_mean_train", ["resume_checkpoint"]),
        ("image_train", ["init_from"]),
        ("image_sample", ["model_path"]),
    ],
)
def test_a_computation_in_place_of_a_checkpoint_is_named(
    tmp_path: Path, script: str, flags: list[str], ending: str
) -> None:
    path = tmp_path / f"net{ending}"
    path.touch()
    folder = {"sr_predict": "input", "image_sample": "output_dir"}.get(script, "data_dir")
    outcome = run(script, words(dict.fromkeys(flags, path), log_dir=tmp_path, **{folder: tmp_path}))
    assert outcome.code == EXIT_CHECKPOINT
    assert f"net{ending} is " in outcome.err and ".safetensors" in outcome.err
