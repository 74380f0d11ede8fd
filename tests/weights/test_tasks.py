"""A safetensors file in the place of a .pt: every network, every script, the same numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisy_label.files import TEST, TRAINING, save_split
from sr_var import Predictor
from sr_var.app.wishes import Model
from tests.image_ddpm.tiny import named_images, read_samples
from tests.noisy_label.conftest import images_of
from tests.pipeline import NUM_SAMPLES, Pipeline
from tests.tiny import Outcome, done, photo, run, tree, words
from tests.weights.tasks import TASKS, export, train
from utils.process.errors import EXIT_CHECKPOINT
from utils.untrusted.state_dict import read_state_dict
from weights.networks import BASELINE, kind_of, restore
from weights.source import Source, read_source
from weights.words import words_of

Train = Callable[..., Path]
_IMAGES = ["TimeConditionedUNet", "EncoderUNet"]


def _silent(line: str) -> None: ...


@pytest.fixture(scope="module")
def trained(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a task for a step, in the folder that is given or in one that is kept."""
    root = tmp_path_factory.mktemp("tasks")
    images, digits = named_images(root / "images"), root / "digits"
    digits.mkdir()
    for split, count in ((TRAINING, 100), (TEST, 50)):
        labels = torch.arange(count) % 10
        save_split(str(digits), split, images_of(labels, count), labels)

    def make(task: str, folder: Path | None = None, **more: Any) -> Path:
        kept = root / task / "model000001.pt"
        if folder is None and kept.exists():
            return kept
        return train(pipeline, images, digits, task, folder or root / task, **more)

    return make


@pytest.fixture(scope="module")
def exported(trained: Train, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The safetensors file of a task's network, with nothing beside it."""
    root = tmp_path_factory.mktemp("exported")

    def make(task: str) -> Path:
        path = root / task / "net.safetensors"
        return path if path.exists() else export(trained(task), path)

    return make


@pytest.mark.parametrize("task", TASKS)
def test_the_network_of_the_file_alone_is_that_of_the_checkpoint(
    trained: Train, exported: Callable[[str], Path], task: str
) -> None:
    sources = [read_source(str(path), _silent) for path in (trained(task), exported(task))]
    assert sources[0].network_class == sources[1].network_class
    assert sources[0].flags == sources[1].flags and sources[0].sha256 == sources[1].sha256
    if task == "baseline":
        assert kind_of(sources[1]) is BASELINE
    else:
        assert sources[1].network_class == task
    nets = [restore(source, _silent) for source in sources]
    with torch.inference_mode():
        outputs = [_output(net, sources[1]) for net in nets]
    assert torch.equal(*outputs) and outputs[0].std() > 0


def _output(net: torch.nn.Module, source: Source) -> torch.Tensor:
    """What the network says of a fixed input."""
    generator = torch.Generator().manual_seed(0)
    flags = source.flags
    side = int(str(flags.get("image_size", flags.get("large_size", 28))))
    is_subpixel = flags.get("network") == "subpixel"
    is_denoiser = "Denoiser" in source.network_class
    small = 8 if is_subpixel and not is_denoiser else side
    channels = 1 if source.network_class == "SmallCNN" else 3
    x = torch.randn(2, channels, small, small, generator=generator)
    if "Variance" in source.network_class:
        return torch.as_tensor(net(x, torch.randn(2, 3, side, side, generator=generator)))
    if source.network_class in ("UNetModel", "SmallCNN") or small == 8:
        return torch.as_tensor(net(x))
    t, y = torch.tensor([3, 7]), torch.tensor([0, 2])
    kwargs: dict[str, torch.Tensor] = {"y": y} if flags.get("class_cond") else {}
    if "SuperRes" in source.network_class or is_denoiser:
        kwargs["low_res"] = torch.randn(2, 3, 8, 8, generator=generator)
    return torch.as_tensor(net(x, t, **kwargs))


@pytest.mark.parametrize("task", TASKS)
def test_every_training_starts_from_the_file_and_none_goes_on_with_it(
    trained: Train, exported: Callable[[str], Path], tmp_path: Path, task: str
) -> None:
    path = exported(task)
    new = trained(task, tmp_path / "new", init_from=path, lr=1e-12)
    one, other = read_state_dict(str(path)), read_state_dict(str(new))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[key], other[key], rtol=0, atol=1e-9) for key in one)
    with pytest.raises(AssertionError, match=r"weights alone.*--init_from") as caught:
        trained(task, tmp_path / "resumed", resume_checkpoint=path)
    assert f"ended with {EXIT_CHECKPOINT}" in str(caught.value)


def test_a_training_of_no_steps_makes_weights_of_nobody_exportable(
    trained: Train, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pt"
    shutil.copy(trained("UNetModel"), bare)
    outcome = run("export", words(model_path=bare, log_dir=tmp_path))
    assert outcome.code == EXIT_CHECKPOINT and "--init_from and --max_step 0" in outcome.err
    trained("UNetModel", tmp_path / "new", init_from=bare, max_step=0)
    path = export(tmp_path / "new" / "model000000.pt", tmp_path / "net.safetensors")
    one, other = read_state_dict(str(bare)), read_state_dict(str(path))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_network_that_sees_another_x_keeps_it(trained: Train, tmp_path: Path) -> None:
    sees = {"degradation": "noise:5-25", "condition_on_level": True, "small_size": 32}
    model = trained("SubpixelModel", tmp_path / "a", **sees, consistent=False)
    path = export(model, tmp_path / "net" / "model.safetensors")
    one, other = (restore(read_source(str(of), _silent), _silent) for of in (model, path))
    x = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(one(x), other(x))
    words = words_of(read_source(str(path), _silent))
    assert "image-restoration" in words.tags and "super-resolution" not in words.tags
    assert "degradation" in words.computes


def _files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if "seconds" not in name}


def test_tests_and_samples_of_the_file_are_those_of_the_checkpoint(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    mean = export(pipeline.mean_model, tmp_path / "mean.safetensors")
    var = export(pipeline.var_model, tmp_path / "var.safetensors")
    denoiser = export(pipeline.ddpm_model, tmp_path / "ddpm.safetensors")
    data, log = pipeline.data.tested_flags, {"log_dir": tmp_path / "log"}
    output = {"output_dir": tmp_path / "out", "batch_size": 2}
    done("sr_mean_test", words(data, log, output, model_path=mean))
    done("sr_var_test", words(data, log, output, model_path=var, mean_model_path=mean))
    assert _files(tmp_path / "out") == _files(pipeline.nets_dir)
    sample = {**pipeline.data.sample_flags, **log, "timestep_respacing": "4", "batch_size": 4}
    sample |= {"num_samples_per_image": NUM_SAMPLES, "output_dir": tmp_path / "samples"}
    done("ddpm_sr_sample", words(sample, model_path=denoiser))
    files, wanted = _files(tmp_path / "samples"), tree(pipeline.samples_dir)
    assert len(files) > 15 and files == {name: wanted[name] for name in files}


def test_results_that_were_begun_with_either_file_go_on_with_the_other(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    shutil.copytree(pipeline.nets_dir, tmp_path / "out")
    mean = export(pipeline.mean_model, tmp_path / "mean.safetensors")
    for lost in (tmp_path / "out").glob("*/high_res_mean_*"):
        if "n01440764_7" in lost.parts:
            lost.unlink()
    flags = {**pipeline.data.tested_flags, "log_dir": tmp_path / "log", "batch_size": 2}
    done("sr_mean_test", words(flags, model_path=mean, output_dir=tmp_path / "out"))
    assert _files(tmp_path / "out") == _files(pipeline.nets_dir)


def test_the_predictor_takes_the_files(pipeline: Pipeline, tmp_path: Path) -> None:
    mean = export(pipeline.mean_model, tmp_path / "mean.safetensors")
    var = export(pipeline.var_model, tmp_path / "var.safetensors")
    image = photo(3, (8, 8))
    one = Predictor.from_checkpoints(str(pipeline.mean_model), str(var), device="cpu")(image)
    other = Predictor.from_checkpoints(str(mean), str(var), device="cpu")(image)
    assert np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)


def _sample(folder: Path, model: Path, guide: Path) -> Outcome:
    few = {"num_samples": 4, "batch_size": 4, "timestep_respacing": "3", "classifier_scale": 5}
    flags = {"model_path": model, "classifier_path": guide, "log_dir": folder}
    return run("image_sample", words(few, flags))


def test_images_and_their_guide_are_the_same(
    trained: Train, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, of in (("a", trained), ("b", exported)):
        outcome = _sample(tmp_path / name, *(of(task) for task in _IMAGES))
        assert outcome.code == 0, outcome.err
    one, other = read_samples(tmp_path / "a"), read_samples(tmp_path / "b")
    assert all(np.array_equal(one[key], other[key]) for key in one)
    assert outcome.out.count("sha256") == 2
    models = [Model.read(*(str(of(task)) for task in _IMAGES)) for of in (trained, exported)]
    assert models[0].labels and models[0].labels == models[1].labels
    assert models[0].facts == models[1].facts


def test_a_file_whose_weights_were_changed_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    path = export(pipeline.mean_model, tmp_path / "mean.safetensors")
    data = bytearray(path.read_bytes())
    data[-40] ^= 16
    path.write_bytes(data)
    flags = {**pipeline.data.tested_flags, "log_dir": tmp_path, "output_dir": tmp_path / "out"}
    outcome = run("sr_mean_test", words(flags, model_path=path))
    assert outcome.code == EXIT_CHECKPOINT and "sha256" in outcome.err and str(path) in outcome.err


def test_other_flags_than_those_of_the_file_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    path = export(pipeline.ddpm_model, tmp_path / "ddpm.safetensors")
    flags = {**pipeline.data.sample_flags, "log_dir": tmp_path, "output_dir": tmp_path / "out"}
    outcome = run("ddpm_sr_sample", words(flags, model_path=path, num_heads=1))
    assert outcome.code == EXIT_CHECKPOINT and "--num_heads 1" in outcome.err
