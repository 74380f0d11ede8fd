"""Training on tiny images: resume, classes, grids, folders, and flags that contradict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.entries import load_entries
from diffusion.timesteps import UniformSampler
from image_ddpm.flags import ImageDataFlags, ImageModelFlags, ImageTrainFlags, with_folders
from image_ddpm.loops import load_train_images
from tests.image_ddpm.tiny import (
    CLASSES,
    NET,
    PROCESS,
    TRAINING,
    named_images,
    write_images,
)
from tests.tiny import done, run, words
from utils.images.crops import cache_index
from utils.process.errors import EXIT_DATA, EXIT_USAGE
from utils.untrusted.state_dict import read_torch_file

SCRIPT = "image_train"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of three classes; read only."""
    return named_images(tmp_path_factory.mktemp("images"))


def _flags(images: Path, log_dir: Path, **more: Any) -> list[str]:
    return words(NET, PROCESS, TRAINING, {"data_dir": images, "log_dir": log_dir}, more)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_torch_file(str(path))
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {**CLASSES, "class_dropout": 0.3, "dropout": 0.1},
        {"in_channels": 1, "learn_sigma": False},
        {"use_kl": True, "schedule_sampler": "loss-second-moment", "microbatch": 1},
        {
            "loss_type": "huber",
            "optimizer": "sgd",
            "noise_schedule": "sqrt",
            "diffusion_steps": 40,
        },
        {
            "lr_schedule": "cosine",
            "lr_anneal_steps": 4,
            "lr_warmup_steps": 2,
            "ema_rate": "0.5,0.9",
        },
        {"random_crop": True, "random_flip": True, "predict_xstart": True, "dropout": 0.1},
    ],
    ids=lambda more: ",".join(more) or "plain",
)
def test_stopped_and_resumed_training_ends_as_a_whole_one(
    images: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    done(SCRIPT, _flags(images, tmp_path / "whole", max_step=4, **more))
    done(SCRIPT, _flags(images, tmp_path / "cut", max_step=2, **more))
    again = {"max_step": 4, "resume_checkpoint": "auto"}
    done(SCRIPT, _flags(images, tmp_path / "cut", **more, **again))
    names = [path.name for path in (tmp_path / "whole").glob("*000004.pt")]
    assert len(names) == 2 + str(more.get("ema_rate", "0.9")).count(",") + 1
    for name in names:
        if name.startswith("opt"):
            continue
        whole, cut = _weights(tmp_path / "whole" / name), _weights(tmp_path / "cut" / name)
        assert all(torch.equal(whole[key], cut[key]) for key in whole), name


def test_cached_crops_train_the_same_weights(images: Path, tmp_path: Path) -> None:
    common = {"random_flip": True, "max_step": 3, "in_channels": 1}
    done(SCRIPT, _flags(images, tmp_path / "plain", **common))
    for name, workers in (("made", 0), ("found", 2)):
        more = {**common, "cache_dir": tmp_path / "cache", "num_workers": workers}
        done(SCRIPT, _flags(images, tmp_path / name, **more))
        plain, cached = (_weights(tmp_path / n / "model000003.pt") for n in ("plain", name))
        assert all(torch.equal(plain[key], cached[key]) for key in plain)
    (folder,) = (tmp_path / "cache").iterdir()
    assert (folder / "crops.u8").stat().st_size == 6 * NET["image_size"] ** 2


def test_image_that_has_another_content_than_its_crop_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a loader process is the first to see it."""
    images, cached = named_images(tmp_path / "images"), {"cache_dir": tmp_path / "cache"}
    for name in ("INDEXED_BYTES", "NUM_COMPARED"):
        monkeypatch.setattr(cache_index, name, 1)
    done(SCRIPT, _flags(images, tmp_path / "first", max_step=1, **cached))
    *_, last = sorted(path for path in images.rglob("*.*") if path.is_file())
    before = last.stat()
    os.utime(last, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    for workers in (0, 2):
        log_dir, more = tmp_path / f"log{workers}", {**cached, "num_workers": workers}
        outcome = run(SCRIPT, _flags(images, log_dir, max_step=9, **more))
        assert outcome.code == EXIT_DATA, outcome.err
        assert f"{last.stem}" in outcome.err and "delete this folder" in outcome.err
        assert "Traceback" not in outcome.err and not list(log_dir.glob("model*"))


def test_folders_come_from_the_environment(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_LOGDIR", str(tmp_path / "logs"))
    done(SCRIPT, words(NET, PROCESS, TRAINING, data_dir=images, max_step=1))
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert {"logs.txt", "model000001.pt", "ema_0.9_000001.pt", "opt000001.pt"} <= names


def test_without_a_folder_a_new_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_LOGDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    flags = with_folders(ImageTrainFlags())
    assert Path(flags.log_dir).parent == tmp_path and "openai-" in flags.log_dir
    assert flags.model_save_dir == flags.log_dir
    assert with_folders(ImageTrainFlags()).log_dir != flags.log_dir  # in the same second
    assert with_folders(ImageTrainFlags(log_dir="x", model_save_dir="y")).model_save_dir == "y"


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE"])
def test_processes_without_a_common_folder_are_refused(
    images: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("OPENAI_LOGDIR", raising=False)
    monkeypatch.setenv(name, "2")
    monkeypatch.setenv(name.replace("WORLD_SIZE", "RANK").replace("SIZE", "RANK"), "0")
    outcome = run(SCRIPT, words(NET, PROCESS, TRAINING, data_dir=images, max_step=1))
    assert outcome.code == 2 and "give --log_dir" in outcome.err


def test_run_that_goes_on_with_other_classes_is_refused(images: Path, tmp_path: Path) -> None:
    done(SCRIPT, _flags(images, tmp_path / "log", max_step=1, **CLASSES))
    others = write_images(tmp_path / "others", ["cat_1.png", "dog_1.png", "fox_1.png"])
    again = {"max_step": 2, "resume_checkpoint": "auto"}
    outcome = run(SCRIPT, _flags(others, tmp_path / "log", **CLASSES, **again))
    assert outcome.code == 4 and "'fox'" in outcome.err and "2 'eel'" in outcome.err
    assert "model000001.pt" in outcome.err and "--init_from" in outcome.err


def test_grid_of_samples_changes_no_weight(images: Path, tmp_path: Path) -> None:
    for name, interval in (("with", 1), ("without", 0)):
        more = {**CLASSES, "sample_interval": interval, "num_grid_samples": 2, "max_step": 3}
        done(SCRIPT, _flags(images, tmp_path / name, **more))
    one, other = (_weights(tmp_path / name / "model000003.pt") for name in ("with", "without"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    sizes = [next((tmp_path / n).glob("events*")).stat().st_size for n in ("with", "without")]
    assert sizes[0] > sizes[1]


def test_labels_are_dropped_as_often_as_asked_and_the_same_way_again(images: Path) -> None:
    model = ImageModelFlags(**{**NET, **CLASSES, "class_dropout": 0.25})
    flags, train = ImageDataFlags(data_dir=str(images)), ImageTrainFlags(batch_size=6)
    entries = load_entries(flags, 3, print)

    def labels() -> list[int]:
        data = load_train_images(
            entries, flags, model, train, UniformSampler(20), torch.device("cpu"), print
        )
        batches = data.batches(0)
        return [int(y) for _ in range(60) for y in next(batches)[0].condition["y"]]

    found = labels()
    assert found == labels()
    share = np.mean([y == 3 for y in found])
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(found)) ** 0.5
    assert set(found) == {0, 1, 2, 3}


def test_network_with_dropped_labels_has_one_more_class(images: Path, tmp_path: Path) -> None:
    done(SCRIPT, _flags(images, tmp_path, max_step=1, **CLASSES, class_dropout=0.1))
    assert _weights(tmp_path / "model000001.pt")["label_emb.weight"].shape[0] == 4


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        ({"in_channels": 2}, 2, "--in_channels 2"),
        ({"class_dropout": 0.1}, 2, "--class_cond True"),
        ({"class_dropout": 1.0, "class_cond": True}, 2, "--class_dropout 1.0"),
        ({"data_dir": ""}, 2, "--data_dir is empty"),
        ({"data_dir": "nowhere"}, 3, "--data_dir nowhere"),
        ({"image_size": 40, "channel_mult": ""}, 2, "pass --channel_mult"),
        ({"lr_warmup_steps": -1}, 2, "--lr_warmup_steps -1"),
        ({"num_grid_samples": 0}, 2, "--num_grid_samples 0"),
        ({"class_cond": True, "num_classes": 2}, 3, "label 2"),
        ({"batch_size": 7}, 3, "7 images"),
        ({"lr_schedule": "cosine"}, 2, "--lr_schedule cosine"),
        ({"num_classes": 0}, 2, "--num_classes 0"),
        ({"cache_dir": "x", "random_crop": True}, 2, "--cache_dir x"),
        ({"preset": "none"}, 2, "'none'"),
    ],
)
def test_wrong_flag_is_refused_with_a_remedy(
    images: Path, tmp_path: Path, more: dict[str, Any], code: int, part: str
) -> None:
    outcome = run(SCRIPT, _flags(images, tmp_path / "log", max_step=1, **more))
    assert outcome.code == code and part in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("log/model*"))


def test_dry_run_writes_nothing(images: Path, tmp_path: Path) -> None:
    said = done(SCRIPT, _flags(images, tmp_path / "log", max_step=9, dry_run=True)).out
    assert "9 steps" in said and not (tmp_path / "log").exists()


def test_remote_log_folder_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(SCRIPT, [*_flags(images, tmp_path / "x"), "--log_dir", "gs://bucket/log"])
    assert outcome.code == 2 and "--log_dir gs://bucket/log" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_loss_of_the_prediction_beside_the_bound_is_refused(images: Path, tmp_path: Path) -> None:
    outcome = run(SCRIPT, _flags(images, tmp_path, max_step=1, use_kl=True, loss_type="l1"))
    assert outcome.code == EXIT_USAGE
    assert "--loss_type l1" in outcome.err and "--use_kl True" in outcome.err
    assert not list(tmp_path.glob("*.pt"))
