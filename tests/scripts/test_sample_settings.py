"""A folder of samples remembers what they were drawn with and takes no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline import NUM_SAMPLES, Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import TEST_NAMES, done, run, shake, tree, words
from utils.process.errors import EXIT_DATA


@pytest.fixture
def folder(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A copy of a finished folder."""
    shutil.copytree(pipeline.samples_dir, tmp_path / "out")
    return tmp_path / "out"


def _argv(pipeline: Pipeline, tmp_path: Path, **changes: Any) -> list[str]:
    return words({**flags_of(pipeline, "ddpm_sr_sample", tmp_path), **changes})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"seed": 1}, "seed 1"),
        ({"timestep_respacing": "5"}, "timestep_respacing '5'"),
        ({"use_ddim": True}, "sampler 'ddim'"),
        ({"clip_denoised": False}, "clip_denoised False"),
        ({"sigma_small": True}, "sigma_small True"),
    ],
)
def test_samples_of_another_law_do_not_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, folder: Path, changes: dict[str, Any], part: str
) -> None:
    (folder / TEST_NAMES[0] / "high_res_samples" / "sample_0.png").unlink()
    before = tree(folder)
    outcome = run("ddpm_sr_sample", _argv(pipeline, tmp_path, **changes))
    assert outcome.code == EXIT_DATA
    assert part in outcome.err and "another --output_dir" in outcome.err
    assert tree(folder) == before


def test_samples_of_other_heads_do_not_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, folder: Path
) -> None:
    """The same weights without a manifest: only the folder can tell."""
    single_process = tmp_path / "model.pt"
    shutil.copy(pipeline.ddpm_model, single_process)
    done("ddpm_sr_sample", _argv(pipeline, tmp_path, model_path=single_process))
    outcome = run(
        "ddpm_sr_sample", _argv(pipeline, tmp_path, model_path=single_process, num_heads=1)
    )
    assert outcome.code == EXIT_DATA and "num_heads 1" in outcome.err


def test_samples_of_other_weights_do_not_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, folder: Path
) -> None:
    from sr_var.script_util import sr_create_model_and_diffusion
    from tests.tiny import DENOISER, PROCESS

    other = tmp_path / "model000002.pt"
    model, _ = sr_create_model_and_diffusion(**DENOISER, **PROCESS)
    torch.save(shake(model).state_dict(), other)
    outcome = run("ddpm_sr_sample", _argv(pipeline, tmp_path, model_path=other))
    assert outcome.code == EXIT_DATA and "model_sha256" in outcome.err


def test_more_samples_in_other_batches_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, folder: Path
) -> None:
    """How many, how many at a time and of which images is no part of the law."""
    changes = {"num_samples_per_image": NUM_SAMPLES + 2, "batch_size": 3, "use_checkpoint": True}
    done("ddpm_sr_sample", _argv(pipeline, tmp_path, **changes))
    for name in TEST_NAMES:
        files = list((folder / name / "high_res_samples").iterdir())
        assert len(files) == NUM_SAMPLES + 2


def test_folder_of_another_tool_is_gone_on_with(
    pipeline: Pipeline, tmp_path: Path, folder: Path
) -> None:
    settings = folder / ".sampling.json"
    settings.unlink()
    done("ddpm_sr_sample", _argv(pipeline, tmp_path))
    assert json.loads(settings.read_text())["seed"] == 0


def test_damaged_settings_are_an_error_that_names_the_file(
    pipeline: Pipeline, tmp_path: Path, folder: Path
) -> None:
    for content in (b"{", b"[1]", b"\xff"):
        (folder / ".sampling.json").write_bytes(content)
        outcome = run("ddpm_sr_sample", _argv(pipeline, tmp_path))
        assert outcome.code == EXIT_DATA and ".sampling.json" in outcome.err


def test_other_sampler_and_spacing_are_remembered_and_a_lost_std_is_said_once(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The tiny chain has 100 steps, so its first noise level is high."""
    changes = {"sampler": "dpmpp_2m", "timestep_respacing": "logsnr4"}
    done("ddpm_sr_sample", _argv(pipeline, tmp_path, **changes))
    settings = json.loads((tmp_path / "out" / ".sampling.json").read_text())
    assert {name: settings[name] for name in changes} == changes
    logged = (tmp_path / "log" / "logs.txt").read_text()
    assert logged.count("keeps 0.778 of a std of 5 grey levels") == 1
    for name in TEST_NAMES:
        assert len(list((tmp_path / "out" / name / "high_res_samples").iterdir())) == NUM_SAMPLES
