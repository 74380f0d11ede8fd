"""Noisy labels are used for the images that they were drawn for, and with their own noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisy_label import files as label_records
from noisy_label.files import (
    TEST,
    TRAINING,
    NoisyLabels,
    load_for,
    load_split,
    save_labels,
    save_split,
    save_with_record,
)
from noisy_label.noise import biased_law, draw_labels, uniform_law
from tests.noisy_label.test_classification import SCRIPT, SMALL
from tests.tiny import done, run, tree, words
from utils.process.errors import DataError

NOISE: dict[str, Any] = {"noise_type": "uniform", "alpha": 0.6}
DRAWN = {**NOISE, "seed": 0, "net": ""}
RIGHT = np.arange(100) % 10
DATA = {"num_images": 100, "images": "1" * 64, "right_labels": "2" * 64}


def _noisy(right: Any = RIGHT, alpha: float = 0.6) -> NoisyLabels:
    law = uniform_law(right, alpha)
    return NoisyLabels(draw_labels(law, 0), law)


def _load(path: Path, data: Any = DATA, noise: Any = NOISE) -> list[str]:
    lines: list[str] = []
    load_for(str(path), RIGHT, data, noise, lines.append)
    return lines


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A file with its record."""
    path = tmp_path / "uniform_noisy_label_0.6.pkl"
    save_with_record(str(path), _noisy(), DATA, DRAWN)
    return path


def test_labels_of_these_images_are_read_without_a_word(labels: Path) -> None:
    assert _load(labels) == []


@pytest.mark.parametrize("part", ["images", "right_labels"])
def test_labels_of_other_images_are_refused_with_both_digests(labels: Path, part: str) -> None:
    with pytest.raises(DataError) as error:
        _load(labels, {**DATA, part: "3" * 64})
    for shown in (str(labels), DATA[part][:12], "3" * 12, "--data_dir", "generate_noisy_label"):
        assert str(shown)[:12] in str(error.value)


@pytest.mark.parametrize("noise", [{**NOISE, "alpha": 0.5}, {**NOISE, "noise_type": "fix"}])
def test_labels_of_other_noise_than_the_flags_say_are_refused(labels: Path, noise: Any) -> None:
    with pytest.raises(DataError, match=r"--(alpha|noise_type) .*\(there: "):
        _load(labels, noise=noise)


def test_a_kill_between_record_and_labels_leaves_no_pair_that_passes(
    labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(label_records, "save_labels", killed)
    other = {**DATA, "images": "3" * 64}
    with pytest.raises(KeyboardInterrupt):
        save_with_record(str(labels), _noisy(RIGHT[::-1]), other, DRAWN)
    for data in (DATA, other):
        with pytest.raises(DataError, match="not the file"):
            _load(labels, data)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_a_damaged_record_is_named(labels: Path, content: bytes) -> None:
    Path(f"{labels}.json").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.6\.pkl\.json .*damaged"):
        _load(labels)


def test_labels_of_another_tool_are_used_with_a_notice(tmp_path: Path) -> None:
    for name in ("uniform_noisy_label_0.6.pkl", "mine.pkl"):
        save_labels(str(tmp_path / name), _noisy())
        (line,) = _load(tmp_path / name)
        assert "notice" in line and name in line


@pytest.mark.parametrize(("kind", "law_of"), [("uniform", uniform_law), ("fix", biased_law)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_laws_that_cannot_be_those_of_the_file_name_are_refused_without_a_record(
    tmp_path: Path, kind: str, law_of: Any, alpha: float
) -> None:
    path = tmp_path / f"{kind}_noisy_label_{alpha:g}.pkl"
    save_labels(str(path), NoisyLabels(RIGHT, law_of(RIGHT, alpha)))
    _load(path)
    nearly = 0.95 * law_of(RIGHT, alpha) + 0.005  # another tool's, rounded
    save_labels(str(path), NoisyLabels(RIGHT, nearly))
    _load(path)
    save_labels(str(path), NoisyLabels(RIGHT, law_of((RIGHT + 5) % 10, alpha)))
    with pytest.raises(DataError, match="other images"):
        _load(path)


def test_laws_that_are_all_alike_say_nothing(tmp_path: Path) -> None:
    """At alpha 0.1 each of ten classes is as likely: such a law fits any images."""
    path = tmp_path / "uniform_noisy_label_0.1.pkl"
    save_labels(str(path), NoisyLabels(RIGHT, uniform_law(RIGHT[::-1], 0.1)))
    lines: list[str] = []
    loaded = load_for(str(path), RIGHT, DATA, {**NOISE, "alpha": 0.1}, lines.append)
    assert np.allclose(loaded.law, 0.1) and (np.asarray(loaded.labels) == RIGHT).all()
    assert len(lines) == 1 and lines[0].startswith("notice: ")


# ---- the script


@pytest.fixture
def other_data(data_dir: Path, tmp_path: Path) -> Path:
    """As many images with other labels."""
    folder = tmp_path / "other"
    for split in (TRAINING, TEST):
        images, labels = load_split(str(data_dir), split)
        save_split(str(folder), split, images, (labels + 5) % 10)
    return folder


def _argv(root: Path, data_dir: Path, task: str, **more: Any) -> list[str]:
    folders = {"log_dir": root / "log", "model_save_dir": root / "save", "data_dir": data_dir}
    short = {**SMALL, **NOISE, "max_step": 2}
    return words({**short, **folders, "noise_label_file": root / "n.pkl", "task": task, **more})


def test_every_task_refuses_labels_of_another_data_set(
    data_dir: Path, other_data: Path, tmp_path: Path
) -> None:
    done(SCRIPT, _argv(tmp_path, data_dir, "generate_noisy_label"))
    done(SCRIPT, _argv(tmp_path, data_dir, "train_on_noisy_label"))
    before = tree(tmp_path)
    for task in ("train_on_noisy_label", "predict_analysis", "draw_pictures"):
        changes = {"model_save_dir": tmp_path / "new"} if task.startswith("train") else {}
        outcome = run(SCRIPT, _argv(tmp_path, other_data, task, **changes))
        assert outcome.code == 3 and "n.pkl" in outcome.err and "--data_dir" in outcome.err
    kept = {name: content for name, content in tree(tmp_path).items() if "log/" not in name}
    assert kept == {name: content for name, content in before.items() if "log/" not in name}


def test_labels_that_were_drawn_otherwise_are_replaced_on_request_alone(
    data_dir: Path, other_data: Path, tmp_path: Path
) -> None:
    argv = _argv(tmp_path, data_dir, "generate_noisy_label")
    done(SCRIPT, argv)
    before = tree(tmp_path)
    done(SCRIPT, argv)
    for data, changes, part in (
        (data_dir, {"seed": 4}, "--seed 4"),
        (data_dir, {"alpha": 0.1}, "--alpha 0.1"),
        (other_data, {}, "--data"),
    ):
        outcome = run(SCRIPT, _argv(tmp_path, data, "generate_noisy_label", **changes))
        assert outcome.code == 3 and part in outcome.err and "--overwrite True" in outcome.err
    for name in ("n.pkl", "n.pkl.json", "n_test.pkl", "n_test.pkl.json"):
        assert (tmp_path / name).read_bytes() == before[name]
    done(SCRIPT, _argv(tmp_path, data_dir, "generate_noisy_label", seed=4, overwrite=True))
    assert (tmp_path / "n.pkl").read_bytes() != before["n.pkl"]
    for name in ("n.pkl.json", "n_test.pkl.json"):
        (tmp_path / name).unlink()
    assert "is replaced" in done(SCRIPT, argv).out


def test_held_out_labels_of_another_draw_are_refused(data_dir: Path, tmp_path: Path) -> None:
    done(SCRIPT, _argv(tmp_path, data_dir, "generate_noisy_label"))
    done(SCRIPT, _argv(tmp_path, data_dir, "train_on_noisy_label"))
    done(SCRIPT, _argv(tmp_path, data_dir, "predict_analysis"))
    for name in ("n_test.pkl", "n_test.pkl.json"):
        shutil.copy(tmp_path / name, tmp_path / f"old_{name}")
    again = {"seed": 1, "overwrite": True}
    done(SCRIPT, _argv(tmp_path, data_dir, "generate_noisy_label", **again))
    for name in ("n_test.pkl", "n_test.pkl.json"):
        shutil.copy(tmp_path / f"old_{name}", tmp_path / name)
    outcome = run(SCRIPT, _argv(tmp_path, data_dir, "predict_analysis"))
    assert outcome.code == 3 and "n_test.pkl" in outcome.err and "--seed" in outcome.err


def test_a_net_of_other_labels_is_said_where_it_is_judged_or_makes_noise(
    data_dir: Path, other_data: Path, tmp_path: Path
) -> None:
    done(SCRIPT, _argv(tmp_path, data_dir, "generate_noisy_label"))
    done(SCRIPT, _argv(tmp_path, data_dir, "train_on_noisy_label"))
    notice = "other images or labels"
    assert notice not in done(SCRIPT, _argv(tmp_path, data_dir, "predict_analysis")).out
    changes = {"noise_type": "model", "noise_label_file": tmp_path / "m.pkl"}
    said = done(SCRIPT, _argv(tmp_path, other_data, "generate_noisy_label", **changes)).out
    assert notice in said
    record = json.loads((tmp_path / "m.pkl.json").read_text())
    assert len(record["net"]) == 64 and record["noise_type"] == "model"


def test_a_sweep_does_not_go_on_with_replaced_images(
    data_dir: Path, other_data: Path, tmp_path: Path
) -> None:
    from noisy_label.flags import SweepFlags
    from noisy_label.sweep import require_same_sweep

    flags = SweepFlags(output_dir=str(tmp_path / "runs"))
    one, other = (
        {name: load_split(str(folder), name) for name in (TRAINING, TEST)}
        for folder in (data_dir, other_data)
    )
    require_same_sweep(flags, one)
    require_same_sweep(flags, one)
    with pytest.raises(DataError, match="--training_right_labels"):
        require_same_sweep(flags, other)
    settings = tmp_path / "runs" / "settings.json"
    content = json.loads(settings.read_text())
    kept = {name: value for name, value in content.items() if not name.startswith(("tr", "te"))}
    settings.write_text(json.dumps(kept))  # as an earlier version wrote it
    require_same_sweep(flags, other)


def test_digests_tell_images_and_labels_apart() -> None:
    from noisy_label.files import describe_split

    images, labels = torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([1, 2])
    found = describe_split(images, labels)
    assert found == describe_split(images.clone(), labels.clone())
    assert found["images"] != describe_split(images + 1, labels)["images"]
    assert found["right_labels"] != describe_split(images, labels.flip(0))["right_labels"]
