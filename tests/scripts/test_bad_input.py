"""Bad input: one line that names what is wrong and how to mend it, and the contract's exit code.

2 usage, 3 data, 4 checkpoint.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline import Pipeline
from tests.scripts.runs import SCRIPTS, TRAININGS, flags_of
from tests.tiny import REGRESSION_NET, TinyData, run, save_weights, tree, words
from utils.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE


def _refused(
    pipeline: Pipeline, script: str, root: Path, code: int, *parts: str, **changes: Any
) -> None:
    outcome = run(script, words(flags_of(pipeline, script, root), **changes))
    said = outcome.err
    assert outcome.code == code, f"exit code {outcome.code}: {said}"
    assert "Traceback" not in said
    for part in parts:
        assert part in said, f"{part!r} is not in: {said}"
    results = {path for path in tree(root) if path.startswith(("out/", "save/"))}
    assert {path for path in results if not Path(path).name.startswith(".")} == set()


def _info_key(script: str) -> str:
    return "to_sample_images_dict_path" if script == "ddpm_sr_sample" else "data_info_dict_path"


WITH_INFO = [script for script in SCRIPTS if script != "sr_data_info"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flag_names_the_nearest_known_one(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("unknown flag --data_dri (did you mean --data_dir?)", "usage:")
    _refused(pipeline, script, tmp_path, EXIT_USAGE, *parts, data_dri="x")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data_folder_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    missing = tmp_path / "none"
    parts = (f"--data_dir {missing} is not a folder",)
    _refused(pipeline, script, tmp_path, EXIT_DATA, *parts, data_dir=missing)


@pytest.mark.parametrize("script", WITH_INFO)
def test_info_dict_that_is_missing_or_empty_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    key, path = _info_key(script), tmp_path / "info.pkl"
    _refused(pipeline, script, tmp_path, EXIT_DATA, str(path), **{key: path})
    path.write_bytes(pickle.dumps({}))
    _refused(pipeline, script, tmp_path, EXIT_DATA, str(path), "lists no image", **{key: path})


@pytest.mark.parametrize("script", WITH_INFO)
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b", "a/../../b", "C:x"])
def test_name_that_leads_out_of_its_folder_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str, name: str
) -> None:
    path = tmp_path / "info.pkl"
    path.write_bytes(pickle.dumps({"a": {"y": 0, "file_names": [name]}}, protocol=4))
    _refused(pipeline, script, tmp_path, EXIT_DATA, str(path), **{_info_key(script): path})


@pytest.mark.parametrize("script", WITH_INFO)
def test_hostile_info_dict_is_refused_without_side_effect(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "info.pkl"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    path.write_bytes(pickle.dumps({"a": {"y": 0, "file_names": [Payload()]}}, protocol=4))
    parts = (str(path), "refused")
    _refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **{_info_key(script): path})
    assert not marker.exists()


@pytest.mark.parametrize("script", TRAININGS)
def test_batch_larger_than_the_data_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("--batch_size 8", "the data set has 7", "lower --batch_size")
    _refused(pipeline, script, tmp_path, EXIT_DATA, *parts, batch_size=8)


@pytest.fixture
def damaged_data(tmp_path: Path) -> TinyData:
    """The tiny data with one training and one test image cut off."""
    data = TinyData.write(tmp_path / "data" / "images", tmp_path / "data" / "info")
    for name in ("n01440764_18.JPEG", "n01440764_7.JPEG"):
        content = (data.data_dir / name).read_bytes()
        (data.data_dir / name).write_bytes(content[:300])
    return data


@pytest.mark.parametrize("script", WITH_INFO)
def test_damaged_image_is_a_data_error_that_names_it(
    pipeline: Pipeline, tmp_path: Path, damaged_data: TinyData, script: str
) -> None:
    name = "n01440764_18.JPEG" if script.endswith("train") else "n01440764_7.JPEG"
    outcome = run(
        script,
        words(
            flags_of(pipeline, script, tmp_path),
            data_dir=damaged_data.data_dir,
            **({"batch_size": 7} if script.endswith("train") else {}),
        ),
    )
    assert outcome.code == EXIT_DATA and f"error: {damaged_data.data_dir}/{name}: " in outcome.err


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sr_mean_train", "damaged images replaced by others: n01440764_18"),
        ("ddpm_sr_train", "damaged images replaced by others: n01440764_18"),
        ("sr_mean_test", "1 damaged images were skipped: n01440764_7"),
        ("sr_var_test", "1 damaged images were skipped: n01440764_7"),
        ("ddpm_sr_sample", "1 damaged images were skipped"),
        ("sr_data_info", "8 images open, 2 were left out"),
    ],
)
def test_damaged_image_is_skipped_and_counted_on_request(
    pipeline: Pipeline, tmp_path: Path, damaged_data: TinyData, script: str, message: str
) -> None:
    changes = {"data_dir": damaged_data.data_dir, "on_bad_image": "skip"}
    if script.endswith("train"):
        changes["batch_size"] = 7
    outcome = run(script, words(flags_of(pipeline, script, tmp_path), **changes))
    assert outcome.code == 0, outcome.err
    assert message in outcome.out


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
    _refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, model_path=wanted)


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
    assert "model090000.pt does not exist" in outcome.err and "model000002.pt" in outcome.err
    assert tree(pipeline.save_dir(task)) == before


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test"])
def test_missing_model_flags_say_who_writes_them(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("model_args.pkl does not exist", "written by the training")
    _refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, log_dir=tmp_path / "log")


@pytest.mark.parametrize("script", ["sr_var_train", "sr_var_test"])
def test_variance_without_a_mean_net_is_a_checkpoint_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("--mean_model_path is empty",)
    _refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, mean_model_path="")
    parts = ("does not exist",)
    missing = tmp_path / "none.pkl"
    _refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, mean_model_args_path=missing)


def test_mean_net_of_other_sizes_is_a_checkpoint_error(pipeline: Pipeline, tmp_path: Path) -> None:
    parts = ("is for 8 → 32, this run for 16 → 32",)
    _refused(pipeline, "sr_var_train", tmp_path, EXIT_CHECKPOINT, *parts, small_size=16)


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
    parts = (str(pipeline.ddpm_model), "does not fit the model that the flags describe")
    _refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **changes)


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
        content = bytearray(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    path.write_bytes(content)
    if kind == "nan":
        state = torch.load(pipeline.mean_model, weights_only=True)
        next(iter(state.values())).fill_(float("nan"))
        torch.save(state, path)
    parts = (str(path),)
    _refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, model_path=path)
    assert not marker.exists()


def test_result_of_an_unnumbered_checkpoint_has_no_name(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pipeline.mean_model.read_bytes())
    parts = ("the file name carries no step",)
    _refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, model_path=path)


def test_sampler_takes_checkpoints_of_any_name(pipeline: Pipeline, tmp_path: Path) -> None:
    """OpenAI's are called 64_256_upsampler.pt; an average is ema_0.9_000002.pt."""
    state = torch.load(pipeline.ddpm_model, weights_only=True)
    path = tmp_path / "64_256_upsampler.pt"
    torch.save(state, path)
    average = pipeline.save_dir("ddpm_sr") / "ema_0.9_000002.pt"
    for model_path in (path, average):
        flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path / model_path.stem)
        outcome = run("ddpm_sr_sample", words(flags, model_path=model_path))
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_var_train", "ddpm_sr_train"])
@pytest.mark.parametrize("mult", ["1,x", "1,,2", "0,1", "-1", "1,2,4,8,16,32,64"])
def test_bad_channel_mult_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, mult: str
) -> None:
    _refused(pipeline, script, tmp_path, EXIT_USAGE, "channel_mult", channel_mult=mult)


@pytest.mark.parametrize(
    ("script", "changes", "part"),
    [
        ("sr_mean_train", {"use_fp16": "maybe"}, "'maybe' is not a boolean"),
        ("sr_mean_train", {"batch_size": 0}, "--batch_size 0 must be at least 1"),
        ("sr_mean_train", {"microbatch": 0}, "--microbatch 0 must be -1 or at least 1"),
        ("sr_mean_train", {"lr": 0}, "--lr 0.0 must be positive"),
        ("sr_mean_train", {"small_size": 5}, "must be a multiple of --small_size 5"),
        ("sr_mean_train", {"large_size": 96, "channel_mult": ""}, "pass --channel_mult"),
        ("sr_mean_train", {"use_fp16": True, "use_bf16": True}, "exclude each other"),
        ("sr_var_train", {"last_layer_type": "relu"}, "'relu'"),
        ("sr_var_train", {"predict_residual": True}, "--predict_residual is for the mean net"),
        ("sr_mean_test", {"batch_size": 0}, "--batch_size 0 must be at least 1"),
        ("sr_mean_test", {"random_flip": True}, "are for training"),
        ("ddpm_sr_sample", {"num_samples_per_image": 0}, "must be at least 1"),
        ("ddpm_sr_sample", {"timestep_respacing": "ddimx"}, "ddim"),
        ("ddpm_sr_sample", {"timestep_respacing": "200"}, "200"),
        ("ddpm_sr_sample", {"eta": 0.5}, "belongs to the ddim sampler"),
        ("ddpm_sr_sample", {"use_ddim": True, "eta": 2}, "[0, 1]"),
        ("ddpm_sr_train", {"schedule_sampler": "loud"}, "'loud'"),
        ("ddpm_sr_train", {"noise_schedule": "flat"}, "'flat'"),
        ("sr_var_verification", {"num_samples": 1}, "--num_samples 1 must be at least 2"),
        ("sr_data_info", {"num_test_per_class": -1}, "must be at least 0"),
    ],
)
def test_impossible_value_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], part: str
) -> None:
    _refused(pipeline, script, tmp_path, EXIT_USAGE, part, **changes)


def test_label_that_the_sampler_does_not_know_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "info.pkl"
    info = {"a": {"y": 0, "file_names": ["n01440764_7"]}, "b": {"y": 5, "file_names": ["n_1"]}}
    path.write_bytes(pickle.dumps(info, protocol=4))
    parts = ("n_1 has label 5, the model knows 0 to 4",)
    changes = {"to_sample_images_dict_path": path}
    _refused(pipeline, "ddpm_sr_sample", tmp_path, EXIT_DATA, *parts, **changes)


def test_training_into_the_folder_of_another_run_is_refused(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    before = tree(pipeline.save_dir("sr_mean"))
    parts = ("already holds checkpoints", "--resume_checkpoint auto")
    folder = pipeline.save_dir("sr_mean")
    _refused(pipeline, "sr_mean_train", tmp_path, EXIT_CHECKPOINT, *parts, model_save_dir=folder)
    assert tree(folder) == before


def test_verification_of_samples_that_are_missing_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    parts = ("96 of 100 samples are missing", "sample_4.png", "lower --num_samples")
    _refused(pipeline, "sr_var_verification", tmp_path, EXIT_DATA, *parts, num_samples=100)
    parts = ("high_res_mean_9.png does not exist", "sr_mean_test.py")
    _refused(pipeline, "sr_var_verification", tmp_path, EXIT_DATA, *parts, mean_model_step=9)


def test_weights_of_another_tool_are_tested_with_a_notice(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """A bare state_dict without manifest loads; only its CRC can be checked."""
    from sr_var.script_util import create_mean_model

    path = save_weights(create_mean_model(**REGRESSION_NET), tmp_path / "theirs" / "model000001.pt")
    outcome = run(
        "sr_mean_test", words(flags_of(pipeline, "sr_mean_test", tmp_path), model_path=path)
    )
    assert outcome.code == 0, outcome.err
    assert "has no manifest" in outcome.out
