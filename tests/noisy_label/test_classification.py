"""``mnist_classification.py``: every task on small data, resume, stop, wrong inputs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from noisy_label.files import load_labels, load_split, save_split
from noisy_label.tasks import LabelTrainLoop
from tests.tiny import Outcome, done, run, tree, words
from utils.process.errors import DataError

SCRIPT = "mnist_classification"
STEPS = 40
SMALL: dict[str, Any] = {
    "input_dim": 64,
    "hidden_dims": "32",
    "batch_size": 50,
    "max_step": STEPS,
    "lr": 3e-3,
    "log_interval": 10,
    "save_interval": 20,
}


def _flags(root: Path, data_dir: Path, run_name: str, **more: Any) -> list[str]:
    folders = {
        "data_dir": data_dir,
        "log_dir": root / "logs" / run_name,
        "model_save_dir": root / "checkpoints" / run_name,
    }
    return words({**SMALL, **folders, **more})


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A clean net; read only."""
    root = tmp_path_factory.mktemp("clean")
    done(SCRIPT, _flags(root, data_dir, "clean"))
    return root


def test_clean_net_learns_the_stripes(clean: Path, data_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "all_right.pkl"
    noise = {"noise_label_file": labels, "alpha": 1}
    flags = _flags(clean, data_dir, "clean", **noise)
    done(SCRIPT, [*flags, "--task", "generate_noisy_label"])
    done(SCRIPT, [*flags, "--task", "predict_analysis"])
    found = json.loads((clean / "logs/clean/analysis.json").read_text())
    assert found["test"]["accuracy"] > 0.95
    assert found["test"]["floor"] == 0 and found["test"]["predicted_accuracy"] == 1


@pytest.mark.parametrize("noise_type", ["uniform", "fix", "model"])
def test_labels_are_made_trained_on_analysed_and_drawn(
    clean: Path, data_dir: Path, tmp_path: Path, noise_type: str
) -> None:
    labels = tmp_path / "labels.pkl"
    noise = {"noise_type": noise_type, "alpha": 0.6, "noise_label_file": labels}
    made = done(
        SCRIPT, [*_flags(clean, data_dir, "clean", **noise), "--task", "generate_noisy_label"]
    )
    assert "(expected 0." in made.out
    assert ("rounds to 1" in made.out) == (noise_type == "model")
    right = load_split(str(data_dir), "training")[1].numpy()
    noisy = load_labels(str(labels), len(right))
    assert 0.4 < np.mean(noisy.labels == right) < 0.75

    flags = _flags(tmp_path, data_dir, "noisy", **noise)
    trained = done(SCRIPT, [*flags, "--task", "train_on_noisy_label"])
    assert f"step {STEPS} | loss" in trained.out
    done(SCRIPT, [*flags, "--task", "predict_analysis"])
    found = json.loads((tmp_path / "logs/noisy/analysis.json").read_text())
    for part in found.values():
        assert part["cross_entropy"] == pytest.approx(part["floor"] + part["kl"], abs=1e-9)
        assert part["kl"] >= 0 and 0 <= part["accuracy"] <= 1
    drawn = done(SCRIPT, [*flags, "--task", "draw_pictures"])
    for split in ("training", "test"):
        path = tmp_path / f"logs/noisy/class_probabilities_{split}.png"
        assert str(path) in drawn.out
        with Image.open(path) as picture:
            assert picture.width > 1000


def test_same_seed_makes_the_same_labels(clean: Path, data_dir: Path, tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        labels = tmp_path / f"{name}.pkl"
        noise = {"noise_type": "model", "alpha": 0.5, "noise_label_file": labels, "seed": seed}
        flags = _flags(clean, data_dir, "clean", **noise)
        done(SCRIPT, [*flags, "--task", "generate_noisy_label"])
        contents.append(labels.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_default_folders_name_the_run(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = words({**SMALL, "data_dir": data_dir, "max_step": 2})
    done(SCRIPT, small)
    noise = ["--noise_type", "fix", "--alpha", "0.80", "--noise_label_file", "n.pkl"]
    done(SCRIPT, [*small, *noise, "--task", "generate_noisy_label"])
    done(SCRIPT, [*small, *noise, "--task", "train_on_noisy_label"])
    files = tree(tmp_path)
    for name in ("clean", "fix_0.8"):
        assert f"checkpoints/mnist/{name}/model000002.pt" in files
        assert f"logs/mnist/{name}/args.json" in files


def test_interrupted_training_ends_as_an_uninterrupted_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(SCRIPT, _flags(tmp_path / "whole", data_dir, "clean"))
    flags = [*_flags(tmp_path / "parts", data_dir, "clean"), "--resume_checkpoint", "auto"]
    real, steps = LabelTrainLoop._post_process, {"left": 17}

    def interrupted(self: LabelTrainLoop, *args: Any) -> None:
        steps["left"] -= 1
        if steps["left"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, *args)

    monkeypatch.setattr(LabelTrainLoop, "_post_process", interrupted)
    assert run(SCRIPT, flags).code == 75
    monkeypatch.undo()
    said = done(SCRIPT, flags)
    assert "(step 17)" in said.out
    name = f"checkpoints/clean/model{STEPS:06d}.pt"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def _refused(flags: list[str], code: int, *messages: str) -> Outcome:
    outcome = run(SCRIPT, flags)
    assert outcome.code == code, outcome.err
    for message in messages:
        assert message in outcome.err
    return outcome


def test_wrong_inputs_are_refused_with_a_remedy(data_dir: Path, tmp_path: Path) -> None:
    flags = _flags(tmp_path, data_dir, "x", noise_label_file=tmp_path / "none.pkl")
    _refused([*flags, "--alpha", "1.5"], 2, "--alpha 1.5")
    _refused([*flags, "--input_dim", "100"], 2, "--input_dim 100")
    _refused([*flags, "--hidden_dims", "a,b"], 2, "--hidden_dims 'a,b'")
    _refused([*flags, "--task", "guess"], 2, "--task")
    _refused([*flags, "--task", "train_on_noisy_label"], 3, "none.pkl", "generate_noisy_label")
    model = [*flags, "--task", "generate_noisy_label", "--noise_type", "model"]
    _refused(model, 4, "no checkpoint")
    _refused([*flags, "--batch_size", "301"], 3, "300")
    assert "checkpoints/x/model000040.pt" not in tree(tmp_path)


def test_dry_runs_write_nothing(clean: Path, data_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "n.pkl"
    flags = _flags(clean, data_dir, "clean", noise_label_file=labels)
    noisy = [*_flags(tmp_path, data_dir, "x", noise_label_file=labels), "--dry_run", "True"]
    before = tree(clean)
    generated = done(SCRIPT, [*flags, "--task", "generate_noisy_label", "--dry_run", "True"])
    assert f"not written: {labels}" in generated.out and not labels.exists()
    done(SCRIPT, [*flags, "--task", "generate_noisy_label"])
    files = tree(tmp_path)
    assert "dry run" in done(SCRIPT, [*noisy, "--task", "train_on_noisy_label"]).out
    for task in ("predict_analysis", "draw_pictures"):
        assert "dry run" in done(SCRIPT, [*flags, "--task", task, "--dry_run", "True"]).out
    assert tree(tmp_path) == files
    kept = {name: content for name, content in tree(clean).items() if name in before}
    assert kept.keys() == before.keys()


def test_half_precision_is_refused(data_dir: Path, tmp_path: Path) -> None:
    flags = _flags(tmp_path, data_dir, "x")
    _refused([*flags, "--use_fp16", "True"], 2, "--use_fp16 True")


def test_net_of_another_shape_is_refused(clean: Path, data_dir: Path, tmp_path: Path) -> None:
    flags = _flags(clean, data_dir, "clean", noise_label_file=tmp_path / "n.pkl")
    wrong = ["--input_dim", "32", "--task", "generate_noisy_label", "--noise_type", "model"]
    _refused([*flags, *wrong], 4, "--input_dim 32 (there: ")


def test_more_than_ten_classes_go_through_every_task(tmp_path: Path) -> None:
    """As EMNIST has them; the law of each label is as long."""
    labels = torch.arange(36) % 12
    for split in ("training", "test"):
        images = torch.randint(0, 256, (36, 28, 28), dtype=torch.uint8)
        save_split(str(tmp_path), split, images, labels)
    few = {"max_step": 2, "batch_size": 12, "save_interval": 2, "log_interval": 1}
    clean = _flags(tmp_path, tmp_path, "clean", **few)
    assert "12 classes" in done(SCRIPT, clean).out
    for noise_type in ("uniform", "fix", "model"):
        noise = {"noise_type": noise_type, "alpha": 0.5}
        done(SCRIPT, [*clean, *words(noise), "--task", "generate_noisy_label"])
        path = tmp_path / f"{noise_type}_noisy_label_0.5.pkl"
        assert load_labels(str(path), 36, 12).law.shape == (36, 12)
        with pytest.raises(DataError, match="10 probabilities"):
            load_labels(str(path), 36)
    flags = _flags(tmp_path, tmp_path, "noisy", **few, noise_type="uniform", alpha=0.5)
    for task in ("train_on_noisy_label", "predict_analysis", "draw_pictures"):
        done(SCRIPT, [*flags, "--task", task])
    found = json.loads((tmp_path / "logs/noisy/analysis.json").read_text())
    assert found["test"]["floor"] == pytest.approx(np.log(2) + 0.5 * np.log(11))
