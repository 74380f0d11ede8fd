"""``--dry_run True`` and ``--debug_mode yes`` of every script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline import Pipeline
from tests.scripts.runs import SCRIPTS, TRAININGS, assert_refused, flags_of
from tests.tiny import run, tree, words
from utils.process.errors import EXIT_DATA

WITH_NETWORK = [*TRAININGS, "sr_mean_test", "sr_var_test", "ddpm_sr_sample"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_writes_nothing_and_ends_well(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(pipeline.root)
    outcome = run(script, words(flags_of(pipeline, script, tmp_path), dry_run=True))
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.iterdir()) == []
    assert tree(pipeline.root) == before
    # the sentence is held on purpose: every script's dry run ends with it
    assert "nothing was written" in outcome.out


@pytest.mark.parametrize("script", WITH_NETWORK)
def test_dry_run_says_what_the_run_will_cost(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    said = run(script, words(flags_of(pipeline, script, tmp_path), dry_run=True)).out
    for part in ("parameters: ", "memory"):
        assert part in said
    assert " s a sample" in said or " s an image" in said or "one step" in said
    assert any(part in said for part in ("whole run", "images: ", "samples of 4 steps"))


@pytest.mark.parametrize("script", TRAININGS)
def test_dry_run_of_a_run_to_resume_leaves_it_as_it_is(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    task = script.removesuffix("_train")
    before = tree(pipeline.root)
    flags = {**flags_of(pipeline, script, tmp_path), **pipeline.folders(task)}
    outcome = run(script, words(flags, resume_checkpoint="auto", max_step=9, dry_run=True))
    assert outcome.code == 0, outcome.err
    assert tree(pipeline.root) == before


@pytest.mark.parametrize("script", WITH_NETWORK)
def test_debug_mode_prints_parameters_and_memory_on_a_cpu_too(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    """Every documented command has ``--debug_mode yes``; here is no GPU and no NVML library."""
    outcome = run(script, words(flags_of(pipeline, script, tmp_path), debug_mode="yes"))
    assert outcome.code == 0, outcome.err
    assert "parameters: " in outcome.out and "memory" in outcome.out


@pytest.mark.parametrize("script", [*TRAININGS, "ddpm_sr_sample"])
def test_dry_run_without_a_whole_image_is_a_data_error(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    for image in Path(pipeline.data.data_dir).rglob("*.*"):
        path = tmp_path / "damaged" / image.relative_to(pipeline.data.data_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    changes = {"data_dir": tmp_path / "damaged", "on_bad_image": "skip", "dry_run": True}
    assert_refused(pipeline, script, tmp_path, EXIT_DATA, "image", **changes)
