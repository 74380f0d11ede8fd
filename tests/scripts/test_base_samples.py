"""Low-res images that are sampled from as they are, their samples in one file, and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sr_var.results.together
from tests.image_ddpm.tiny import named_images, read_samples, write_model
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import DENOISER, LARGE, PROCESS, SMALL, Outcome, done, run, tree, words
from utils.process.errors import EXIT_DATA, EXIT_USAGE

Array = NDArray[np.uint8]


def _images(count: int = 3, side: int = SMALL) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _flags(pipeline: Pipeline, root: Path, base: Path, **changes: Any) -> dict[str, Any]:
    own = {"model_path": pipeline.ddpm_model, "batch_size": 4, "log_dir": root / "log"}
    return {
        **DENOISER,
        **PROCESS,
        **own,
        "output_dir": root / "out",
        "base_samples": base,
    } | changes


def _npz(path: Path, *arrays: NDArray[Any]) -> Path:
    np.savez(path, *arrays)
    return path


def _draw(pipeline: Pipeline, root: Path, base: Path, **changes: Any) -> Outcome:
    return done("ddpm_sr_sample", words(_flags(pipeline, root, base, **changes)))


def test_images_go_in_as_they_are_and_samples_come_out_in_one_file(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    images = _images()
    base = _npz(tmp_path / "base.npz", images, np.array([4, 0, 1]))
    said = _draw(pipeline, tmp_path, base, output_npz=True).out
    stored = read_samples(tmp_path / "out")
    assert stored["arr_0"].shape == (3, LARGE, LARGE, 3) and stored["arr_0"].dtype == np.uint8
    assert stored["arr_1"].tolist() == [4, 0, 1]
    assert f"samples_3x{LARGE}x{LARGE}x3.npz" in said
    for index, image in enumerate(images):
        folder = tmp_path / "out" / f"{index:06d}"
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "low_res.png")), image)
        drawn = np.asarray(Image.open(folder / "high_res_samples" / "sample_0.png"))
        np.testing.assert_array_equal(drawn, stored["arr_0"][index])
    before = tree(tmp_path / "out")
    _draw(pipeline, tmp_path, base, output_npz=True)
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before if "seconds" not in name} == {
        name: content for name, content in before.items() if "seconds" not in name
    }


def test_pictures_give_what_their_array_gives(pipeline: Pipeline, tmp_path: Path) -> None:
    """Pictures of image_sample.py, whose names begin with the label."""
    images, labels = _images(), [1, 0, 4]
    folder = tmp_path / "png"
    folder.mkdir()
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"{label}_x_{index:06d}.png")
    _draw(pipeline, tmp_path / "a", folder, num_samples_per_image=2, output_npz=True)
    found = read_samples(tmp_path / "a" / "out")
    order = np.argsort([f"{label}_x_{i}" for i, label in enumerate(labels)])
    assert found["arr_0"].shape[0] == 6
    assert found["arr_1"].tolist() == [label for i in order for label in [labels[i]] * 2]
    for position, i in enumerate(order):
        name = f"{labels[i]}_x_{i:06d}.png"
        low_res = Image.open(tmp_path / "a" / "out" / name / "low_res.png")
        np.testing.assert_array_equal(np.asarray(low_res), images[i])
        sample = Image.open(tmp_path / "a" / "out" / name / "high_res_samples" / "sample_1.png")
        np.testing.assert_array_equal(np.asarray(sample), found["arr_0"][2 * position + 1])


def test_a_stop_while_all_is_put_together_leaves_no_file_and_the_next_run_makes_it(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _npz(tmp_path / "base.npz", _images(), np.zeros(3, np.int64))
    with monkeypatch.context() as patch:
        patch.setattr(sr_var.results.together, "open_image", _no_space)
        flags = words(_flags(pipeline, tmp_path, base, output_npz=True))
        assert run("ddpm_sr_sample", flags).code != 0
    assert not list((tmp_path / "out").glob("samples_*"))
    _draw(pipeline, tmp_path, base, output_npz=True)
    assert read_samples(tmp_path / "out")["arr_0"].shape[0] == 3


def _no_space(path: str) -> Image.Image:
    raise OSError(28, "No space left on device", path)


@pytest.mark.parametrize(
    ("arrays", "changes", "code", "parts"),
    [
        (
            (_images(side=SMALL + 1), np.zeros(3, int)),
            {},
            EXIT_DATA,
            ("arr_0", "--small_size"),
        ),
        ((_images().astype(float),), {}, EXIT_DATA, ("float64", "uint8")),
        ((_images(),), {}, EXIT_DATA, ("no labels", "--class_cond False")),
        ((_images(), np.zeros(2, np.int64)), {}, EXIT_DATA, ("arr_1",)),
        ((_images(), np.array([0, 1, 5])), {}, EXIT_DATA, ("not trained on", "5")),
        ((_images(), np.array([0, 2, 1])), {}, EXIT_DATA, ("not trained on", "2")),
        ((_images(), np.zeros(3, np.int64)), {"data_dir": "x"}, EXIT_USAGE, ("--data_dir",)),
        (
            (_images(), np.zeros(3, np.int64)),
            {"value_range": "0,1"},
            EXIT_USAGE,
            ("--value_range",),
        ),
    ],
)
def test_what_does_not_fit_is_named(
    pipeline: Pipeline,
    tmp_path: Path,
    arrays: tuple[NDArray[Any], ...],
    changes: dict[str, Any],
    code: int,
    parts: tuple[str, ...],
) -> None:
    base = _npz(tmp_path / "base.npz", *arrays)
    outcome = run("ddpm_sr_sample", words(_flags(pipeline, tmp_path, base, **changes)))
    assert outcome.code == code, outcome.err
    for part in (*parts, "base.npz"):
        assert part in outcome.err, outcome.err


def test_pictures_of_another_size_and_a_missing_file_are_named(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    folder = named_images(tmp_path / "pictures")
    outcome = run("ddpm_sr_sample", words(_flags(pipeline, tmp_path, folder)))
    assert outcome.code == EXIT_DATA and "6 of 6 pictures" in outcome.err
    assert "--small_size" in outcome.err
    outcome = run("ddpm_sr_sample", words(_flags(pipeline, tmp_path, tmp_path / "none.npz")))
    assert outcome.code == EXIT_DATA and "none.npz is missing" in outcome.err


def test_samples_of_an_image_model_are_enlarged_by_an_upsampler(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The chain of docs/image_diffusion.md, on tiny networks."""
    net = {"image_size": SMALL, "num_channels": 8, "num_res_blocks": 1, "channel_mult": "1,2"}
    net |= {"attention_resolutions": "4", "num_heads": 2, "class_cond": True, "num_classes": 5}
    model = write_model(tmp_path / "base.pt", **net)
    small = {"output_dir": tmp_path / "small", "log_dir": tmp_path / "log", "num_samples": 3}
    process = {**PROCESS, "learn_sigma": True, "batch_size": 3, "labels": "1,0,4"}
    done("image_sample", words({**net, **process, **small, "model_path": model}))
    base = tmp_path / "small" / f"samples_3x{SMALL}x{SMALL}x3.npz"
    _draw(pipeline, tmp_path, base, output_npz=True)
    found = read_samples(tmp_path / "out")
    assert found["arr_0"].shape == (3, LARGE, LARGE, 3) and found["arr_1"].tolist() == [1, 0, 4]


def test_a_folder_alone_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = named_images(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    folders = {"log_dir": tmp_path / "log", "model_save_dir": tmp_path / "save"}
    process = {**PROCESS, "timestep_respacing": ""}
    flags = {**DENOISER, **process, **TRAINING, **folders, "max_step": 1, "data_dir": images}
    said = done("ddpm_sr_train", words(flags))
    assert "all images below --data_dir" in said.out and "6 images, 3 of 5 classes" in said.out
    assert (tmp_path / "save" / "model000001.pt").exists()
    outcome = run("ddpm_sr_train", words({**flags, "data_info_dict_path": "none.pkl"}))
    assert outcome.code == EXIT_DATA and "none.pkl" in outcome.err
