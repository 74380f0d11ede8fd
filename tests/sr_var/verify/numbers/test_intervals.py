"""The bootstrap over images against closed forms, and the words of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sr_var.verify.numbers.calibration import Histograms, ause, calibrate, ence
from sr_var.verify.numbers.intervals import (
    HistogramReplicates,
    bootstrap,
    equivalence,
    percentile_interval,
    verdict,
)


def _same(means: Mapping[str, Any]) -> Mapping[str, Any]:
    return means


def test_replicates_of_a_mean_scatter_by_its_standard_error() -> None:
    """Var* of a bootstrapped mean is Σ (x − x̄)²/N², exactly, over the draws."""
    values = np.random.default_rng(0).gamma(2, 3, 40)
    found = bootstrap({"x": values}, _same, seed=0, num_replicates=20_000)["x"]
    expected = values.std() / math.sqrt(40)
    assert found.mean() == pytest.approx(values.mean(), abs=4 * expected / math.sqrt(20_000))
    assert found.std() == pytest.approx(expected, rel=0.03)
    low, high = percentile_interval(found, 0.95) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.05)


def test_ratio_is_one_of_sums_and_not_a_mean_of_ratios() -> None:
    """With y = 2x in every image each replicate of Σy/Σx is 2, whatever the images weigh."""
    x = np.array([1.0, 10.0, 100.0])
    rows = {"x": x, "y": 2 * x}
    found = bootstrap(rows, lambda m: {"ratio": m["y"] / m["x"], "y": m["y"]}, 0, 500)
    np.testing.assert_allclose(found["ratio"], 2, rtol=1e-12)
    assert found["y"].std() > 1  # the sums themselves do scatter


def test_images_are_drawn_together_for_all_metrics() -> None:
    x = np.random.default_rng(1).normal(0, 1, 30)
    found = bootstrap({"x": x, "y": -x}, _same, 0, 200)
    np.testing.assert_allclose(found["x"], -found["y"], rtol=1e-12)


def test_replicates_follow_from_the_seed() -> None:
    rows = {"x": np.arange(10.0)}
    one, two, other = (bootstrap(rows, _same, seed, 250)["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert len(one) == 250


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """95 % in 300 experiments of 50 images: 3 standard errors are 3.8 %."""
    rng, hits = np.random.default_rng(2), 0
    for seed in range(300):
        replicates = bootstrap({"x": rng.normal(5, 2, 50)}, _same, seed, 400)["x"]
        low, high = percentile_interval(replicates, 0.95) or (0, 0)
        hits += low < 5 < high
    assert hits / 300 == pytest.approx(0.94, abs=0.04)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_interval(bad: float) -> None:
    rows = {"x": np.array([1.0, bad, 3.0]), "y": np.arange(3.0)}
    found = bootstrap(rows, _same, 0, 50)
    assert percentile_interval(found["x"], 0.95) is None
    assert percentile_interval(found["y"], 0.95) is not None


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ([-0.04, 0.04], "equivalent"),
        ([0.01, 0.03], "equivalent"),
        ([0.06, 0.09], "different"),
        ([-0.2, -0.06], "different"),
        ([0.04, 0.06], "undecided"),
        ([-0.3, 0.3], "undecided"),
        (None, "undecided"),
    ],
)
def test_word_follows_from_interval_and_margin(interval: list[float] | None, word: str) -> None:
    assert equivalence(interval, 0.05, is_square=False) == word


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ([-0.2, -0.06], "equivalent"),  # noise alone takes the estimate of a square there
        ([-0.2, 0.04], "equivalent"),
        ([-0.2, 0.06], "undecided"),
        ([0.06, 0.09], "different"),
    ],
)
def test_square_differs_only_above_the_margin(interval: list[float], word: str) -> None:
    assert equivalence(interval, 0.05, is_square=True) == word


def _metrics(value: float) -> dict[str, float]:
    names = ("mean.relative_rms_error", "var.relative_rms_error", "var.relative_bias")
    return dict.fromkeys(names, value)


def test_verdict_uses_the_ninety_per_cent_interval() -> None:
    """Replicates even on [-0.052, 0.052]: their 90 % interval is within 5 %, the 95 % one not."""
    replicates = dict.fromkeys(_metrics(0), np.linspace(-0.052, 0.052, 1001))
    found = verdict(_metrics(0.0), replicates, 0.05)
    for part in ("mean", "variance", "bias"):
        assert found[part]["verdict"] == "equivalent"
        assert found[part]["interval"] == pytest.approx([-0.0468, 0.0468])
    assert found["margin"] == 0.05
    assert "mean equivalent, off by 0 % of a std (rms) [0, 4.7]" in found["text"]
    assert "bias of the variance equivalent, 0 % [-4.7, 4.7]" in found["text"]


def test_margin_of_zero_gives_intervals_without_a_verdict() -> None:
    replicates = dict.fromkeys(_metrics(0), np.linspace(0.1, 0.2, 11))
    found = verdict(_metrics(0.15), replicates, 0.0)
    assert found["mean"]["verdict"] is None and found["mean"]["interval"] is not None
    assert "equivalent" not in found["text"] and "15 %" in found["text"]


def test_single_image_leaves_it_undecided_and_an_unknown_metric_has_no_verdict() -> None:
    assert verdict(_metrics(0.0), {}, 0.05)["mean"]["verdict"] == "undecided"
    assert verdict(_metrics(math.nan), {}, 0.05)["bias"]["verdict"] is None


def _image(rng: np.random.Generator) -> Histograms:
    """The histograms of a 32² image whose std is right up to a factor of its own."""
    std = np.exp(rng.uniform(0.5, 3, (32, 32)))
    error = rng.normal(0, std) * rng.uniform(0.7, 1.4)
    return calibrate(error, np.zeros_like(error), std**2)[1]


def _ratio(sums: Histograms) -> float:
    return float(sums.square.sum() / sums.variance.sum())


def test_replicates_of_histograms_scatter_as_those_of_means() -> None:
    """Of Σ error² / Σ v, which both ways can compute."""
    rng, replicates = np.random.default_rng(4), HistogramReplicates(seed=0)
    images = [_image(rng) for _ in range(40)]
    for image in images:
        replicates.add({"nets": image, "samples": image})
    found = replicates.replicates("nets", _ratio)
    rows = {
        "square": np.array([image.square.sum() for image in images]),
        "variance": np.array([image.variance.sum() for image in images]),
    }
    expected = bootstrap(rows, lambda m: {"r": m["square"] / m["variance"]}, 0)["r"]
    assert len(found) == 400
    # the std of 400 replicates has a standard error of 3.5 %
    assert found.std() == pytest.approx(expected.std(), rel=0.12)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.3 * expected.std())
    np.testing.assert_array_equal(found, replicates.replicates("samples", _ratio))


@pytest.mark.parametrize("metric", [ence, ause])
def test_replicates_of_equal_images_are_all_the_metric_itself(metric: Any) -> None:
    """Whatever an image weighs; merged bins move the metric by less than 1 %."""
    image, replicates = _image(np.random.default_rng(5)), HistogramReplicates(seed=1)
    for _ in range(3):
        replicates.add({"nets": image})
    found = replicates.replicates("nets", metric)
    assert 300 < len(found) < 400  # e⁻³ of the replicates have drawn nothing
    np.testing.assert_allclose(found, metric(image), rtol=0.01)


def test_what_is_not_known_is_said_in_words() -> None:
    """Two or three samples do not tell how noisy their variance is."""
    metrics = {"mean.relative_rms_error": 0.02, "var.relative_rms_error": math.nan}
    metrics["var.relative_bias"] = 0.1
    said = verdict(metrics, {}, 0.05)["text"]
    assert "nan" not in said and "variance not known" in said
