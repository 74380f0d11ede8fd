"""Samples by index: files, labels, stops, processes, and what is refused."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import image_ddpm.sample_files
from ddpm.sampling import Sampler
from image_ddpm.parts import PartStore, read_part
from image_ddpm.sample_files import grid_rows, sample_grid
from tests.image_ddpm.tiny import CLASSES, NET, PROCESS, SIDE, read_samples, write_model
from tests.tiny import done, run, tree, words

SCRIPT = "image_sample"
FLAGS: dict[str, Any] = {**NET, **CLASSES, **PROCESS, "num_samples": 7, "batch_size": 3}
FEW = {"timestep_respacing": "3"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional network of random weights."""
    return write_model(tmp_path_factory.mktemp("model") / "m.pt", **CLASSES)


def _flags(model: Path, log_dir: Path, **more: Any) -> list[str]:
    return words(FLAGS, FEW, {"model_path": model, "log_dir": log_dir}, more)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one uninterrupted process wrote; read only."""
    folder = tmp_path_factory.mktemp("whole")
    done(SCRIPT, _flags(model, folder))
    return folder


def test_samples_are_one_file_with_labels(whole: Path) -> None:
    assert (whole / f"samples_7x{SIDE}x{SIDE}x3.npz").exists()
    assert not (whole / "parts").exists()
    found = read_samples(whole)
    assert found["arr_0"].shape == (7, SIDE, SIDE, 3) and found["arr_0"].dtype == np.uint8
    assert found["arr_1"].shape == (7,) and set(found["arr_1"]) <= {0, 1, 2}
    assert len({image.tobytes() for image in found["arr_0"]}) == 7


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_draw_what_one_draws(
    model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    for rank in range(world_size):
        for name, value in (("RANK", rank), ("WORLD_SIZE", world_size), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))
        done(SCRIPT, _flags(model, tmp_path))
    found, expected = read_samples(tmp_path), read_samples(whole)
    assert np.array_equal(found["arr_1"], expected["arr_1"])
    difference = np.abs(found["arr_0"].astype(int) - expected["arr_0"].astype(int))
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.01


def test_stopped_run_goes_on_and_ends_as_a_whole_one(
    model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, draw = [], Sampler._draw

    def drawing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*args)

    monkeypatch.setattr(Sampler, "_draw", drawing)
    outcome = run(SCRIPT, _flags(model, tmp_path))
    assert outcome.code == 75 and "run again" in outcome.out
    assert len(list((tmp_path / "parts").glob("*.npz"))) == 1
    done(SCRIPT, _flags(model, tmp_path))
    assert len(calls) == 2 + 2  # three samples were kept
    found, expected = read_samples(tmp_path), read_samples(whole)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_finished_run_draws_nothing(
    model: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampler, "_draw", None)
    before = (whole / f"samples_7x{SIDE}x{SIDE}x3.npz").read_bytes()
    done(SCRIPT, _flags(model, whole))
    assert (whole / f"samples_7x{SIDE}x{SIDE}x3.npz").read_bytes() == before


def test_classes_can_be_chosen(model: Path, tmp_path: Path) -> None:
    done(SCRIPT, _flags(model, tmp_path, labels="2,0"))
    assert read_samples(tmp_path)["arr_1"].tolist() == [2, 0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize(
    "more",
    [
        {"use_ddim": True, "timestep_respacing": "ddim4"},
        {"sampler": "ddim", "eta": 0.5},
        {"sampler": "plms"},
        {"sampler": "dpmpp_2m", "timestep_respacing": "logsnr4"},
        {"sampler": "dpmpp_2m_sde"},
        {"clip_denoised": False},
    ],
    ids=str,
)
def test_every_sampler_draws(model: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    done(SCRIPT, words(FLAGS, FEW, {"num_samples": 2}, more, model_path=model, log_dir=tmp_path))
    assert read_samples(tmp_path)["arr_0"].std() > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_samples(tmp_path: Path, channels: int) -> None:
    path = write_model(tmp_path / "m.pt", in_channels=channels)
    flags = {**NET, **PROCESS, **FEW, "in_channels": channels, "num_samples": 3, "batch_size": 2}
    done(SCRIPT, words(flags, model_path=path, log_dir=tmp_path / "log", png=True))
    found = read_samples(tmp_path / "log")
    assert set(found) == {"arr_0"}  # no classes
    for index in range(3):
        picture = np.asarray(Image.open(tmp_path / "log" / "png" / f"{index:06d}.png"))
        assert np.array_equal(picture.reshape(found["arr_0"][index].shape), found["arr_0"][index])
    with Image.open(tmp_path / "log" / "grid.png") as grid:
        assert grid.size == (3 * (SIDE + 2) + 2, SIDE + 4)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "of another shape"])
def test_pictures_of_damaged_samples_are_a_data_error_with_a_remedy(
    model: Path, whole: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    path = next((tmp_path / "out").glob("samples_*.npz"))
    data = path.read_bytes()
    place = data.index(b"\n") + 5  # behind the header of arr_0
    damaged = {
        "cut": data[:300],
        "empty": b"",
        "flipped": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
    }
    path.write_bytes(damaged.get(damage, data))
    if damage == "of another shape":
        np.savez(path, arr_0=np.zeros((7, SIDE, SIDE, 1), np.uint8))
    outcome = run(SCRIPT, _flags(model, tmp_path / "out", png=True))
    assert outcome.code == 3 and outcome.err.count("error:") == 1, outcome
    assert str(path) in outcome.err and "delete" in outcome.err and "folder png" in outcome.err
    path.unlink()
    shutil.rmtree(path.with_name("png"), ignore_errors=True)
    done(SCRIPT, _flags(model, tmp_path / "out", png=True))
    assert path.read_bytes() == data and len(list(path.parent.glob("png/*.png"))) == 7


@pytest.mark.parametrize("labels", [np.arange(6), np.zeros(7)], ids=["too few", "no numbers"])
def test_labels_that_are_not_those_of_the_samples_are_refused(
    model: Path, whole: Path, tmp_path: Path, labels: NDArray[Any]
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    path = next((tmp_path / "out").glob("samples_*.npz"))
    np.savez(path, arr_0=read_samples(whole)["arr_0"], arr_1=labels)
    outcome = run(SCRIPT, _flags(model, tmp_path / "out", png=True))
    assert outcome.code == 3 and "arr_1" in outcome.err and "7 samples" in outcome.err


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        ({"labels": "1,x"}, 2, "--labels x: "),
        ({"labels": "3"}, 2, "--labels 3"),
        ({"guidance_scale": 2.0}, 2, "--class_dropout"),
        ({"num_samples": 0}, 2, "--num_samples 0"),
        ({"model_path": ""}, 4, "--model_path is empty"),
        ({"model_path": "none.pt"}, 4, "none.pt"),
        ({"num_channels": 16}, 4, "--num_channels"),
        ({"eta": 0.5}, 2, "eta"),
        ({"use_ddim": True, "sampler": "plms"}, 2, "contradict"),
    ],
)
def test_wrong_flag_is_refused_with_a_remedy(
    model: Path, tmp_path: Path, more: dict[str, Any], code: int, part: str
) -> None:
    outcome = run(SCRIPT, _flags(model, tmp_path / "log", **more))
    assert outcome.code == code and part in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.rglob("samples_*"))


def test_folder_of_other_samples_is_refused(model: Path, whole: Path) -> None:
    before = tree(whole)
    outcome = run(SCRIPT, _flags(model, whole, seed=1))
    assert outcome.code == 3 and "--seed 1" in outcome.err
    assert read_samples(whole)["arr_0"].tobytes() in before[f"samples_7x{SIDE}x{SIDE}x3.npz"]


def test_samples_that_no_record_tells_of_are_not_taken_for_those_of_this_run(
    model: Path, whole: Path, tmp_path: Path
) -> None:
    name = f"samples_7x{SIDE}x{SIDE}x3.npz"
    shutil.copy(whole / name, tmp_path / name)
    outcome = run(SCRIPT, _flags(model, tmp_path))
    assert outcome.code == 3 and name in outcome.err and "--output_dir" in outcome.err
    assert not (tmp_path / ".sampling.json").exists()
    shutil.copy(whole / ".sampling.json", tmp_path)
    done(SCRIPT, _flags(model, tmp_path))


def test_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    said = done(SCRIPT, _flags(model, tmp_path / "log", dry_run=True)).out
    assert (
        any("7 samples" in line and "3 steps" in line for line in said.splitlines())
        and not (tmp_path / "log").exists()
    )


@pytest.mark.parametrize("killed_at", ["writing", "removing"])
def test_killed_while_putting_together_leaves_nothing_behind(
    model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """What a killed process left half written, or wrote and did not clear, the next one clears."""

    class Killed(BaseException):
        pass

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if killed_at == "writing":
            patch.setattr(np.lib.format, "write_array_header_1_0", killed)
        else:
            patch.setattr(PartStore, "remove", killed)
        run(SCRIPT, _flags(model, tmp_path))
    stale = tmp_path / ".samples.npz.4194304.0bbfd16a3462aada.tmp"  # no process has that number
    stale.write_bytes(b"half")
    done(SCRIPT, _flags(model, tmp_path))
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert "parts" not in names and not stale.exists()
    found, expected = read_samples(tmp_path), read_samples(whole)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_signal_while_putting_together_ends_with_75_and_goes_on(
    model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(path: str, *names: str) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return read_part(path, *names)

    with monkeypatch.context() as patch:
        patch.setattr(image_ddpm.sample_files, "read_part", signalled)
        outcome = run(SCRIPT, _flags(model, tmp_path))
    assert outcome.code == 75 and not list(tmp_path.glob("samples_*"))
    done(SCRIPT, _flags(model, tmp_path))
    assert np.array_equal(read_samples(tmp_path)["arr_0"], read_samples(whole)["arr_0"])


def test_grid_has_a_row_for_each_class_however_few_there_are() -> None:
    labels = np.array([0, 2, 2, 2, 0, 1])
    rows = grid_rows(6, labels)
    assert rows == [[0, 4], [5], [1, 2, 3]]
    images = {i: np.full((2, 2, 1), 10 * i + 1, np.uint8) for i in range(6)}
    grid = sample_grid(rows, images)
    assert grid.shape == (3 * 4 + 2, 3 * 4 + 2, 3)
    assert grid[6, 2:, 0].tolist()[::4] == [51, 0, 0]  # the one of class 1, then black
    assert grid_rows(25, None) == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


def test_debug_mode_tells_what_the_network_costs(model: Path, tmp_path: Path) -> None:
    assert "parameters: " in done(SCRIPT, _flags(model, tmp_path, debug_mode=True)).out


def test_flags_of_a_classifier_without_one_are_refused(model: Path, tmp_path: Path) -> None:
    outcome = run(SCRIPT, _flags(model, tmp_path, classifier_scale=5))
    assert (
        outcome.code == 2
        and "--classifier_scale" in outcome.err
        and "--classifier_path" in outcome.err
    )
