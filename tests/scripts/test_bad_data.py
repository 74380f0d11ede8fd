"""Bad data: one line that names what is wrong and how to mend it, and exit code 3."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.scripts.runs import FOLDERS, SCRIPTS, TRAININGS, assert_refused, info_key
from utils.process.errors import EXIT_DATA

WITH_INFO = [script for script in SCRIPTS if script != "sr_data_info"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data_folder_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    missing = tmp_path / "none"
    parts = (f"--data_dir {missing} is not a folder",)
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, data_dir=missing)


@pytest.mark.parametrize(("script", "flag"), FOLDERS)
def test_file_in_place_of_a_folder_is_named(
    pipeline: Pipeline, tmp_path: Path, script: str, flag: str
) -> None:
    place = tmp_path / "place"
    place.write_text("mine")
    parts = (f"--{flag} {place} is a file; name another folder",)
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **{flag: place})
    below = place / "a" / "b"
    parts = (f"--{flag} {below} cannot be made: {place} is a file; name another folder",)
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **{flag: below})
    assert place.read_text() == "mine"


@pytest.mark.parametrize("script", WITH_INFO)
def test_info_dict_that_is_missing_or_a_folder_or_empty_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    key, path = info_key(script), tmp_path / "info.pkl"
    for wrong, problem in ((path, "does not exist"), (tmp_path, "is a folder")):
        parts = (f"--{key} {wrong} {problem}; name a pickle", "sr_data_info.py writes it")
        assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **{key: wrong})
    path.write_bytes(pickle.dumps({}))
    assert_refused(
        pipeline, script, tmp_path, EXIT_DATA, str(path), "lists no image", **{key: path}
    )


@pytest.mark.parametrize("script", WITH_INFO)
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b", "a/../../b", "C:x"])
def test_name_that_leads_out_of_its_folder_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str, name: str
) -> None:
    path = tmp_path / "info.pkl"
    path.write_bytes(pickle.dumps({"a": {"y": 0, "file_names": [name]}}, protocol=4))
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, str(path), **{info_key(script): path})


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
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, **{info_key(script): path})
    assert not marker.exists()


@pytest.mark.parametrize("script", TRAININGS)
def test_batch_larger_than_the_data_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("--batch_size 8", "has 7", "--batch_size")
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, *parts, batch_size=8)


def test_label_that_the_sampler_does_not_know_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "info.pkl"
    info = {"a": {"y": 0, "file_names": ["n01440764_7"]}, "b": {"y": 5, "file_names": ["n_1"]}}
    path.write_bytes(pickle.dumps(info, protocol=4))
    parts = (
        "n_1 has label 5",
        "0 to 4",
    )
    changes = {"to_sample_images_dict_path": path}
    assert_refused(pipeline, "ddpm_sr_sample", tmp_path, EXIT_DATA, *parts, **changes)


def test_verification_of_samples_that_are_missing_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    parts = ("96 of 100 samples", "sample_4.png", "--num_samples")
    assert_refused(pipeline, "sr_var_verification", tmp_path, EXIT_DATA, *parts, num_samples=100)
    parts = ("high_res_mean_9.png", "sr_mean_test.py")
    assert_refused(pipeline, "sr_var_verification", tmp_path, EXIT_DATA, *parts, mean_model_step=9)


@pytest.mark.parametrize("size", [16, 64])
def test_verification_of_results_of_another_size_names_theirs(
    pipeline: Pipeline, tmp_path: Path, size: int
) -> None:
    parts = (f"is 32×32, not --large_size {size}; give --large_size 32, or the folder of",)
    assert_refused(pipeline, "sr_var_verification", tmp_path, EXIT_DATA, *parts, large_size=size)
