"""Names that the file system takes go through sampling, tests and verification."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import NUM_SAMPLES, Pipeline
from tests.scripts.runs import flags_of, info_key
from tests.tiny import done, run, words, write_photos
from utils.files.storage import MAX_NAME_BYTES
from utils.process.errors import EXIT_DATA
from utils.untrusted.pickles import dump_pickle

NAMES = [
    "n" * (MAX_NAME_BYTES - len(".JPEG")),
    "e" * (MAX_NAME_BYTES - len(".png")) + ".png",
    "/".join(["x" * 120] * 3) + ".png",
    "a/b/c.png",
    "a__b/c.png",
    "a b.png",
    "a_b.png",
    "a.b.png",
]


def _flags(pipeline: Pipeline, script: str, root: Path, names: list[str]) -> dict[str, Any]:
    dump_pickle({"n01443537": {"y": 1, "file_names": names}}, root / "info.pkl")
    own = {"data_dir": root / "images", info_key(script): root / "info.pkl"}
    flags = {**flags_of(pipeline, script, root), **own}
    return {name: value for name, value in flags.items() if name != "output_dir"}


def test_names_that_were_sampled_are_verified_each_with_its_own_panel(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    write_photos(tmp_path / "images", NAMES)
    folders = {"ddpm_sr_sample": tmp_path / "samples"}
    for script in ("ddpm_sr_sample", "sr_mean_test", "sr_var_test"):
        output = folders.get(script, tmp_path / "nets")
        done(script, words(_flags(pipeline, script, tmp_path, NAMES), output_dir=output))
    flags = _flags(pipeline, "sr_var_verification", tmp_path, NAMES)
    results = {
        "ddpm_sr_output_dir": tmp_path / "samples",
        "sr_model_output_dir": tmp_path / "nets",
    }
    done("sr_var_verification", words(flags, results))
    panels = {path.name for path in (tmp_path / "log" / "panels").iterdir()}
    assert len(panels) == len(NAMES)
    assert {"a__b__c.png.png", "a_b.png.png"} <= panels
    samples = tmp_path / "samples" / NAMES[0] / "high_res_samples"
    assert len(list(samples.iterdir())) == NUM_SAMPLES


@pytest.mark.parametrize("script", ["ddpm_sr_sample", "sr_mean_test"])
def test_name_that_no_file_can_have_is_said_to_be_too_long(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    (tmp_path / "images").mkdir()
    name = "n" * MAX_NAME_BYTES
    flags = {**_flags(pipeline, script, tmp_path, [name]), "output_dir": tmp_path / "out"}
    outcome = run(script, words(flags))
    assert outcome.code == EXIT_DATA
    assert name in outcome.err and "too long" in outcome.err and "shorten" in outcome.err


def test_too_long_a_folder_is_said_to_be_too_long(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "sr_mean_train", tmp_path)
    for name in ("log_dir", "model_save_dir"):
        long = tmp_path / ("n" * (MAX_NAME_BYTES + 1))
        outcome = run("sr_mean_train", words({**flags, name: long}))
        assert outcome.code == EXIT_DATA
        assert str(long) in outcome.err and "too long" in outcome.err
        assert "shorten" in outcome.err.lower() and "space" not in outcome.err
        shutil.rmtree(tmp_path / "save", ignore_errors=True)
