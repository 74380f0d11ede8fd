"""sr_app.py without its page: which samples may be drawn, and the process that draws them."""

from __future__ import annotations

import base64
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm.flags import SAMPLER_NAMES
from sr_var.app.results import Refused, Turns
from sr_var.app.samples import Job, Sampling
from sr_var.app.wishes import Model, Wish, read_models
from tests.image_ddpm.tiny import CLASSES, NET, PROCESS, TRAINING, named_images
from tests.tiny import done, words
from utils.process.errors import CheckpointError


def _status(work: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refused) as refusal:
        work()
    line = str(refusal.value)
    assert line and "\n" not in line
    return refusal.value.status, line


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three named classes, trained for a step."""
    root = tmp_path_factory.mktemp("denoiser")
    folders = {"data_dir": named_images(root / "images"), "log_dir": root / "log"}
    flags = {"sample_interval": 0, "max_step": 1, "model_save_dir": root / "save"}
    argv = words(NET, CLASSES, PROCESS, TRAINING, flags, folders, class_dropout=0.5)
    done("image_train", argv)
    return root / "save" / "ema_0.9_000001.pt"


def test_model_says_what_may_be_chosen(denoiser: Path, tmp_path: Path) -> None:
    model = Model.read(str(denoiser))
    assert model.labels == ("0 cat", "1 dog", "2 eel")
    assert model.max_steps == 20 and model.has_guidance
    assert "16×16" in model.facts and "3 classes" in model.facts and "silu" in model.facts
    bare = tmp_path / "bare.pt"
    bare.write_bytes(denoiser.read_bytes())
    for path, part in ((bare, "manifest"), (tmp_path / "none.pt", "not exist")):
        with pytest.raises(CheckpointError, match=part):
            Model.read(str(path))


def test_models_are_those_given_and_the_weights_of_the_same_step(
    denoiser: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(denoiser.parent, other)
    (other / "secret.pt").write_bytes(b"")
    found = read_models(f"{denoiser}, {other / 'model000001.pt'}")
    assert [model.path for model in found.values()] == [
        str(path)
        for path in (
            denoiser,
            denoiser.parent / "model000001.pt",
            other / "model000001.pt",
            other / "ema_0.9_000001.pt",
        )
    ]
    assert set(found) == {
        f"{folder}/{name}"
        for folder in ("save", "other")
        for name in ("ema_0.9_000001.pt", "model000001.pt")
    }
    assert read_models("") == {}
    assert list(read_models(str(denoiser))) == ["ema_0.9_000001.pt", "model000001.pt"]


def test_command_is_one_that_the_script_takes(denoiser: Path) -> None:
    from image_sample import create_parser as sample_parser

    model = Model.read(str(denoiser))
    wish = Wish("", "2 eel", 3, "dpmpp_2m", 5, guidance_scale=1.5, seed=7, image_format="tif")
    args = sample_parser().parse_args(model.command(wish, "/x", 8)[1:])
    assert (args.labels, args.num_samples, args.sampler) == ("2", 3, "dpmpp_2m")
    assert (args.timestep_respacing, args.guidance_scale, args.seed) == ("logsnr5", 1.5, 7)
    assert args.output_dir == args.log_dir == "/x"
    assert args.png and args.image_format == "tif"


@pytest.mark.parametrize(
    ("labels", "chosen", "number"),
    [
        ("", None, 4),
        ("random", None, 4),
        ("each", "each", 3),
        ("1", "1", 4),
        ("eel", "2", 4),
        ("0 cat", "0", 4),
        ("eel, 0", "2,0", 4),
    ],
)
def test_class_is_named_in_any_way(
    denoiser: Path, labels: str, chosen: str | None, number: int
) -> None:
    words = Model.read(str(denoiser)).command(Wish(labels=labels), "/x", 8)
    found = dict(word.removeprefix("--").split("=", 1) for word in words[1:])
    assert found.get("labels") == chosen and found["num_samples"] == str(number)
    assert found["timestep_respacing"] == "logsnr20"


def test_every_solver_of_higher_order_takes_steps_even_in_log_snr(denoiser: Path) -> None:
    for sampler in SAMPLER_NAMES:
        command = Model.read(str(denoiser)).command(Wish(sampler=sampler, steps=9), "/x", 8)
        is_first_order = sampler in ("ancestral", "ddim")
        assert f"--timestep_respacing={'' if is_first_order else 'logsnr'}9" in command


@pytest.mark.parametrize(
    "wish",
    [
        Wish(num_samples=-1),
        Wish(num_samples=17),
        Wish(steps=21),
        Wish(steps=-1),
        Wish(seed=-1),
        Wish(guidance_scale=float("nan")),
        Wish(sampler="--debug_mode"),
        Wish(labels="0 --output_dir=/"),
        Wish(labels="9"),
        Wish(labels="0,"),
        Wish(image_format="gif"),
    ],
)
def test_wish_outside_of_the_choices_is_refused(denoiser: Path, wish: Wish) -> None:
    assert _status(lambda: Model.read(str(denoiser)).command(wish, "/x", 16))[0] == 422


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"output_dir": "/x"},
        {"model_path": "/etc/passwd"},
        {"num_samples": True},
        {"num_samples": 2.5},
        {"steps": "5"},
        {"labels": ["cat"]},
    ],
)
def test_json_that_is_no_wish_is_refused(content: Any) -> None:
    assert _status(lambda: Wish.from_json(content))[0] == 422


def test_json_becomes_a_wish() -> None:
    assert Wish.from_json({}) == Wish()
    wish = Wish.from_json({"labels": "each", "guidance_scale": 2})
    assert (wish.labels, wish.guidance_scale) == ("each", 2)


def _sampling(models: dict[str, Model], folder: Path, max_seconds: int = 300) -> Sampling:
    return Sampling(models, str(folder), Turns(1), max_seconds=max_seconds, max_samples=16)


@pytest.mark.slow
def test_samples_are_drawn_by_the_script(denoiser: Path, tmp_path: Path) -> None:
    sampling, job = _sampling(read_models(str(denoiser)), tmp_path), Job()
    wish = Wish(labels="each", steps=2, sampler="ddim", image_format="tif")
    drawing = sampling.draw(wish, job)
    assert [caption for _, caption in drawing.pictures] == ["0 cat", "1 dog", "2 eel"]
    assert "--labels=each" in drawing.command and str(tmp_path) not in drawing.command
    with np.load(Path(drawing.folder, "samples_3x16x16x3.npz"), allow_pickle=False) as file:
        samples = file["arr_0"]
    for (path, label), (shown, same), pixels in zip(
        drawing.pictures, drawing.shown, samples, strict=True
    ):
        assert path.endswith(".tif") and shown.endswith(".png") and label == same
        with Image.open(path, formats=["TIFF"]) as tif, Image.open(shown, formats=["PNG"]) as png:
            np.testing.assert_array_equal(np.asarray(tif), pixels)
            np.testing.assert_array_equal(np.asarray(png), pixels)
    with zipfile.ZipFile(drawing.archive) as archive:
        names = archive.namelist()
    assert {"samples_3x16x16x3.npz", "grid.png", "classes.json"} <= set(names)
    assert len([name for name in names if name.startswith("tif/")]) == 3
    told = drawing.as_json()["pictures"]
    assert base64.b64decode(told[1]["base64"]) == Path(drawing.pictures[1][0]).read_bytes()
    sampling.forget(drawing)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "status", "part", "seconds"),
    [
        ("import time; time.sleep(60)", 409, "--max_seconds", 1),
        ("import sys; print('error: --labels 9: no'); sys.exit(2)", 422, "--labels 9: no", 60),
        ("import sys; sys.exit(75)", 409, "stopped", 60),
        ("1 / 0", 500, "ended with 1", 60),
    ],
)
def test_end_of_the_script_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
    part: str,
    seconds: int,
) -> None:
    (tmp_path / "image_sample.py").write_text(code)
    monkeypatch.setattr("sr_var.app.samples._ROOT", str(tmp_path))
    models = {"m.pt": Model("m.pt", (), 20, has_guidance=False)}
    sampling = _sampling(models, tmp_path, seconds)
    found, line = _status(lambda: sampling.draw(Wish(steps=2)))
    assert found == status and part in line
    assert os.listdir(tmp_path) == ["image_sample.py"]
    assert _status(lambda: sampling.draw(Wish("n.pt", steps=2)))[0] == 422


def test_drawing_says_how_far_it_is_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "sampling: 0/8 sample, 0.1 sample/s, 3 s left step 4 of 9"
    (tmp_path / "image_sample.py").write_text(
        f"print('{line}', flush=True)\nimport time; time.sleep(60)"
    )
    monkeypatch.setattr("sr_var.app.samples._ROOT", str(tmp_path))
    sampling = _sampling({"m.pt": Model("m.pt", (), 20, has_guidance=False)}, tmp_path, 50)
    job, other = Job(), Job()
    said = job.said

    def stop() -> None:
        while job.said != line:
            time.sleep(0.01)
        other.stop()  # of somebody else
        job.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    assert _status(lambda: sampling.draw(Wish(steps=2), job)) == (409, "stopped")
    thread.join(10)
    assert "turn" in said
    # one that has not begun does not begin
    assert _status(lambda: sampling.draw(Wish(steps=2), other)) == (409, "stopped")
