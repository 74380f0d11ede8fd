"""The super-resolving denoiser: its checkpoints keep its flags and classes, which then count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import DDPM_STEPS, Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import CLASSES, DENOISER, PROCESS, done, run, tree, words
from utils.untrusted.pickles import dump_pickle

OTHER = [
    {"noise_schedule": "cosine"},
    {"diffusion_steps": 200},
    {"predict_xstart": True},
    {"rescale_timesteps": True},
    {"num_heads": 1},
    {"small_size": 16},
]
_TRAINED_WITH = (*DENOISER, *PROCESS)


@pytest.fixture
def run_dir(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A copy of the checkpoints of the training."""
    shutil.copytree(pipeline.save_dir("ddpm_sr"), tmp_path / "save")
    return tmp_path / "save"


def _bare(pipeline: Pipeline, script: str, root: Path) -> dict[str, Any]:
    """The flags of a script without those of network and process."""
    flags = flags_of(pipeline, script, root)
    return {name: value for name, value in flags.items() if name not in _TRAINED_WITH}


def test_a_denoiser_alone_is_enough_to_sample(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = _bare(pipeline, "ddpm_sr_sample", tmp_path)
    respaced = {"timestep_respacing": PROCESS["timestep_respacing"], "batch_size": 4}
    said = done("ddpm_sr_sample", words(flags, respaced)).out
    (notice,) = [line for line in said.splitlines() if "left out" in line]
    assert "--large_size 32" in notice and "--diffusion_steps 100" in notice
    found, expected = tree(tmp_path / "out"), tree(pipeline.samples_dir)
    pictures = [name for name in expected if "/high_res_samples/" in name]
    assert pictures and all(found[name] == expected[name] for name in pictures)


@pytest.mark.parametrize("change", OTHER, ids=str)
def test_samples_of_another_network_or_process_are_refused(
    pipeline: Pipeline, tmp_path: Path, change: dict[str, Any]
) -> None:
    outcome = run("ddpm_sr_sample", words(_bare(pipeline, "ddpm_sr_sample", tmp_path), change))
    ((name, value),) = change.items()
    assert outcome.code == 4 and f"--{name} {value!r}" in outcome.err
    assert str(pipeline.ddpm_model) in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [*OTHER, {"use_kl": True}], ids=str)
def test_a_training_of_another_network_or_process_is_not_gone_on_with(
    pipeline: Pipeline, tmp_path: Path, run_dir: Path, change: dict[str, Any]
) -> None:
    flags = flags_of(pipeline, "ddpm_sr_train", tmp_path)
    flags |= {"resume_checkpoint": "auto", "max_step": DDPM_STEPS + 1, **change}
    before = tree(run_dir)
    outcome = run("ddpm_sr_train", words(flags))
    ((name, value),) = change.items()
    assert outcome.code == 4 and f"--{name} {value!r}" in outcome.err
    assert "--init_from" in outcome.err and tree(run_dir) == before


def test_a_training_goes_on_without_the_flags_of_its_network(
    pipeline: Pipeline, tmp_path: Path, run_dir: Path
) -> None:
    flags = _bare(pipeline, "ddpm_sr_train", tmp_path)
    done("ddpm_sr_train", words(flags, resume_checkpoint="auto", max_step=DDPM_STEPS + 1))
    manifest = json.loads((run_dir / f"ckpt{DDPM_STEPS + 1:06d}.json").read_text())
    assert manifest["network"]["class"] == "SuperResModel"
    # labels 2 and 3 have no images
    names = ["n01440764", "n01443537", "", "", "n01484850"]
    assert manifest["state"]["classes"] == names


def test_images_whose_class_has_another_label_than_in_training_are_refused(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    shifted = {
        key: {"y": (y + 1) % 5, "file_names": names[:1]} for key, (y, names) in CLASSES.items()
    }
    dump_pickle(shifted, tmp_path / "info.pkl")
    flags = flags_of(pipeline, "ddpm_sr_sample", tmp_path)
    flags |= {"to_sample_images_dict_path": tmp_path / "info.pkl"}
    outcome = run("ddpm_sr_sample", words(flags))
    assert outcome.code == 3 and "'n01440764'" in outcome.err and "label 1" in outcome.err
    assert str(tmp_path / "info.pkl") in outcome.err
