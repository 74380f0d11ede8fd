"""A classifier that is judged while it trains: on which images, at which noise, what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.process import create_diffusion
from diffusion.timesteps import LossSecondMomentResampler, ScheduleSampler, UniformSampler
from image_ddpm.classifier import (
    ClassifierTrainLoop,
    DrawnImages,
    NoiseLevels,
    NoisyImages,
    classifier_metrics,
)
from image_ddpm.flags import ClassifierProcessFlags
from image_ddpm.validation import noise_levels
from tests.image_ddpm.test_guidance_runs import CLASSIFIER, IMAGE
from tests.image_ddpm.tiny import PROCESS, named_images, write_images
from tests.tiny import Outcome, done, run, words
from tests.utils.events import read_scalars
from tests.utils.training_loops import differences, saved_run
from utils.logger import RunLogger
from utils.process.errors import EXIT_DATA, EXIT_USAGE

HELD_OUT = ["cat_7.png", "dog_8.png", "eel_9.png", "dog_9.png"]
STEPS = {"batch_size": 3, "log_interval": 1, "max_step": 4, "save_interval": 2}
METRICS = {"loss", "accuracy"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to train on, and others to judge on."""
    root = tmp_path_factory.mktemp("judged")
    named_images(root / "train")
    write_images(root / "val", HELD_OUT)
    return root


def _flags(place: Path, log_dir: Path, *more: dict[str, Any]) -> list[str]:
    own = {"data_dir": place / "train", "log_dir": log_dir}
    return words(IMAGE, CLASSIFIER, PROCESS, STEPS, own, *more)


def _train(place: Path, log_dir: Path, **more: Any) -> Outcome:
    return done("classifier_train", _flags(place, log_dir, more))


def _check(place: Path) -> dict[str, Any]:
    return {"val_data_dir": place / "val", "val_interval": 1}


def _same_run(one: Path, other: Path, step: int) -> bool:
    """Whether a run without validation and one with it saved the same, bit for bit."""
    without, with_one = saved_run(one, step), saved_run(other, step)
    del with_one["state"]["best"], with_one["state"]["validation"]
    return differences(without, with_one) == []


def test_the_training_is_the_same_bit_for_bit_and_the_best_is_named(
    place: Path, tmp_path: Path
) -> None:
    _train(place, tmp_path / "without")
    said = _train(place, tmp_path / "with", **_check(place)).out
    assert _same_run(tmp_path / "without", tmp_path / "with", 4)
    assert f"validation on 4 images of {place / 'val'}" in said
    found = read_scalars(tmp_path / "with")
    levels = ["", *(f"_q{quarter}" for quarter in range(4))]
    # three classes: a label is always among the five most likely
    assert {key for key in found if key.startswith("val/")} == {
        f"val/{name}{level}" for name in METRICS for level in levels
    }
    curve = found["val/loss"]
    assert curve.keys() == {1, 2, 3, 4}
    best = json.loads((tmp_path / "with" / "best.json").read_text())
    assert best["metric"] == "loss" and best["step"] in (2, 4)
    assert best["value"] == pytest.approx(min(curve[2], curve[4]), rel=1e-6)  # float32 of events
    assert (tmp_path / "with" / best["model"]).is_file()
    # 20 timesteps make four equal quarters
    quarters = [best["metrics"][f"loss_q{quarter}"] for quarter in range(4)]
    assert best["value"] == pytest.approx(sum(quarters) / 4, rel=1e-12)


def test_a_stopped_run_goes_on_with_the_best_so_far(place: Path, tmp_path: Path) -> None:
    _train(place, tmp_path / "whole", **_check(place))
    _train(place, tmp_path / "parts", **_check(place), max_step=2)
    _train(place, tmp_path / "parts", **_check(place), resume_checkpoint="auto")
    one, other = (saved_run(tmp_path / name, 4) for name in ("whole", "parts"))
    assert differences(one, other) == []
    one_best, other_best = ((tmp_path / name / "best.json") for name in ("whole", "parts"))
    assert one_best.read_text() == other_best.read_text()


def test_a_classifier_without_noise_is_judged_on_clean_images(place: Path, tmp_path: Path) -> None:
    _train(place, tmp_path, **_check(place), noised=False)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["metrics"].keys() == METRICS


def test_labels_are_those_of_the_training_where_the_folder_lacks_a_class(
    place: Path, tmp_path: Path
) -> None:
    """Images of the last class alone: on their own they would be of the first one."""
    write_images(tmp_path / "eels", ["eel_5.png", "eel_6.png"])
    # a classifier that learns nothing but that nearly all is the last class
    one = {"lr": 0.1, "weight_decay": 0.0, "max_step": 12, "save_interval": 12}
    write_images(tmp_path / "mostly", [f"eel_{i}.png" for i in range(20)])
    write_images(tmp_path / "mostly", ["cat_1.png", "dog_1.png"])
    own = {"data_dir": tmp_path / "mostly", "val_data_dir": tmp_path / "eels"}
    _train(place, tmp_path / "log", **one, **own)
    best = json.loads((tmp_path / "log" / "best.json").read_text())
    assert best["metrics"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("code", "parts", "more"),
    [
        (EXIT_USAGE, ["--val_interval 5", "--val_data_dir"], {"val_interval": 5}),
        (EXIT_USAGE, ["--val_images"], {"val_data_dir": "val", "val_images": -1}),
        (EXIT_DATA, ["--val_data_dir", "no/such"], {"val_data_dir": "no/such"}),
        (EXIT_DATA, ["--val_data_dir", "6 of 6", "trained on"], {"val_data_dir": "train"}),
        (EXIT_DATA, ["--val_data_dir", "2 of 4", "trained on"], {"val_data_dir": "linked"}),
        (EXIT_DATA, ["--val_data_dir", "'fox'", "not trained on"], {"val_data_dir": "fox"}),
    ],
)
def test_bad_flags_are_refused_in_one_line(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    parts: list[str],
    more: dict[str, Any],
) -> None:
    monkeypatch.chdir(place)
    if not (place / "fox").exists():
        write_images(place / "fox", ["fox_1.png", "cat_1.png"])
        write_images(place / "linked", ["cat_7.png", "dog_7.png"])
        for name in ("cat_1.png", "eel_1.png"):
            (place / "linked" / name).symlink_to(place / "train" / name)
    outcome = run("classifier_train", _flags(place, tmp_path / "log", more))
    assert outcome.code == code and "Traceback" not in outcome.err
    assert all(part in outcome.err for part in parts), outcome.err
    assert not list((tmp_path / "log").glob("*.pt"))


# ---- the numbers


def test_one_timestep_of_each_quarter_whatever_is_drawn_elsewhere() -> None:
    flags = {**PROCESS, "diffusion_steps": 10, "rescale_timesteps": False}
    diffusion = create_diffusion(ClassifierProcessFlags(**flags))
    x = torch.full((1, 3, 8, 8), 0.5)
    seen = [set() for _ in range(4)]
    for number in range(60):
        levels = noise_levels(diffusion, x, f"image {number}")
        for quarter, t in zip(levels.quarters, levels.images.t.tolist(), strict=True):
            seen[quarter].add(t)
    # quarter q is t with floor(4 t / 10) = q, each of whose steps is met in 60 draws of three
    assert seen == [{0, 1, 2}, {3, 4}, {5, 6, 7}, {8, 9}]
    assert levels.shares.tolist() == [0.3, 0.2, 0.3, 0.2]
    torch.manual_seed(5)
    again = noise_levels(diffusion, x, "image 59")
    assert torch.equal(again.images.x, levels.images.x)
    other = noise_levels(diffusion, x, "image 58")
    assert not torch.equal(other.images.x, levels.images.x)


def test_a_chain_of_three_steps_has_three_quarters() -> None:
    flags = {**PROCESS, "diffusion_steps": 3, "rescale_timesteps": False}
    diffusion = create_diffusion(ClassifierProcessFlags(**flags))
    levels = noise_levels(diffusion, torch.zeros(1, 3, 4, 4), "image")
    assert levels.images.t.tolist() == [0, 1, 2] and levels.quarters == [0, 1, 2]
    assert levels.shares.tolist() == pytest.approx([1 / 3] * 3)


def test_metrics_are_those_of_their_definitions() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [0.0, 0, 0, 9, 0, 0]])
    found = classifier_metrics(logits, torch.tensor([0, 5, 1]))
    assert found["accuracy"].tolist() == [1, 0, 0]
    assert found["accuracy_top_5"].tolist()[:2] == [1, 0]
    total = sum(math.exp(k) for k in range(1, 7))
    expected = [-math.log(math.exp(k) / total) for k in (6, 1)]
    assert found["loss"].tolist()[:2] == pytest.approx(expected, rel=1e-5)  # fp32
    assert classifier_metrics(logits[:, :5], torch.tensor([0, 1, 2])).keys() == METRICS


class Table(torch.nn.Module):
    """Logits of two classes by t; right for t = 0 alone."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[2.0, 0.0], [0.0, 2.0]])[t]


class TableLoop(ClassifierTrainLoop):
    """The losses of `Table`, without a training."""

    def __init__(self, schedule_sampler: ScheduleSampler | None = None) -> None:
        self.wrapped_model = Table()
        self.schedule_sampler = schedule_sampler or UniformSampler(2)
        self.logger = RunLogger(is_quiet=True)


def test_loss_and_accuracy_are_those_of_uniform_timesteps_however_they_are_drawn() -> None:
    sampler = LossSecondMomentResampler(2, history_per_term=4, uniform_prob=0.0)
    loop, count = TableLoop(sampler), 4000
    t = torch.arange(8) % 2
    images = NoisyImages(torch.zeros(8, 1, 1, 1), t)
    loop.compute_loss(DrawnImages(images, t, torch.ones(8)), torch.zeros(8, dtype=torch.int64))
    low, high = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert sampler.weights().tolist() == pytest.approx([low / (low + high), high / (low + high)])
    t, weight = sampler.sample(range(count))
    assert float(t.double().mean()) == pytest.approx(high / (low + high), abs=0.02)
    drawn = DrawnImages(NoisyImages(torch.zeros(count, 1, 1, 1), t), t, weight)
    label = torch.zeros(count, dtype=torch.int64)
    loss, logits = loop.compute_loss(drawn, label)
    assert float(loss) == pytest.approx((low + high) / 2, rel=1e-5)
    loop._post_process(drawn, label, logits, 0)
    names, means = loop.logger.take_means()
    assert names == ["accuracy"]
    # t = 0 alone is right, half of uniform timesteps; four standard errors
    spread = math.sqrt((1 / (2 * low / (low + high)) / 2 - 0.25) / count)
    assert float(means[0]) == pytest.approx(0.5, abs=4 * spread)


def test_a_mean_over_levels_is_weighted_by_their_shares_of_the_chain() -> None:
    images = NoisyImages(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]))
    shares = torch.tensor([0.7, 0.3], dtype=torch.float64)
    found = TableLoop().judge(NoiseLevels(images, shares, [0, 3]), torch.tensor([0, 0]))
    assert float(found["accuracy"]) == pytest.approx(0.7, abs=1e-12)
    assert float(found["accuracy_q0"]) == 1 and float(found["accuracy_q3"]) == 0
    low, high = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert float(found["loss"]) == pytest.approx(0.7 * low + 0.3 * high, rel=1e-6)  # fp32 logits
