"""Jackknife intervals against closed forms, what is independent, and sums of histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sr_var.verify.numbers import intervals
from sr_var.verify.numbers.calibration import Histograms, ause, calibrate
from sr_var.verify.numbers.intervals import (
    MIN_UNITS,
    Clusters,
    HistogramParts,
    clusters_of,
    every_one,
    interval_of_square,
    jackknife_interval,
    leave_one_out,
)
from utils.images.listing import Entry
from utils.process.errors import DataError


def _same(means: Mapping[str, Any]) -> Mapping[str, Any]:
    return means


def test_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).gamma(2, 3, 40)
    left_out = leave_one_out({"x": values}, _same, every_one(40, "image"))["x"]
    found = jackknife_interval(float(values.mean()), left_out, 0.95)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found == pytest.approx(expected, rel=1e-9)


def test_ratio_is_one_of_sums_and_not_a_mean_of_ratios() -> None:
    """With y = 2x in every image Σy/Σx is 2, whichever is left out."""
    x = np.array([1.0, 10.0, 100.0])
    rows = {"x": x, "y": 2 * x}
    found = leave_one_out(
        rows, lambda m: {"ratio": m["y"] / m["x"], "y": m["y"]}, every_one(3, "image")
    )
    np.testing.assert_allclose(found["ratio"], 2, rtol=1e-12)
    np.testing.assert_allclose(found["y"], [110, 101, 11])


def test_standard_error_of_a_ratio_is_that_of_the_delta_method() -> None:
    """√(Σ (y − r x)²/(N (N − 1)))/x̄ (Cochran 1977, section 6.4), to 1 % at N = 400."""
    rng = np.random.default_rng(1)
    x = rng.gamma(4, 1, 400)
    y = x * rng.uniform(0.5, 1.5, 400)
    left_out = leave_one_out(
        {"x": x, "y": y}, lambda m: {"r": m["y"] / m["x"]}, every_one(400, "image")
    )["r"]
    ratio = y.mean() / x.mean()
    low, high = jackknife_interval(ratio, left_out, 0.95) or (0, 0)
    error = math.sqrt(((y - ratio * x) ** 2).sum() / (400 * 399)) / x.mean()
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 399) * error, rel=0.01)


@pytest.mark.parametrize("mean", [0.0, 0.5, 40.0])
def test_interval_of_a_square_is_longer_upwards_the_larger_it_is(mean: float) -> None:
    """log(value + κ): Student's ends to first order, κ = 0 from eight standard errors on."""
    values = np.random.default_rng(3).normal(0, 1, 100)
    values += mean - values.mean()
    left_out = leave_one_out({"x": values}, _same, every_one(100, "image"))["x"]
    low, high = interval_of_square(float(values.mean()), left_out, 0.95) or (0, 0)
    error, quantile = stats.sem(values), stats.t.ppf(0.975, 99)
    whole = max(mean, 8 * error)  # value + κ
    assert high - mean == pytest.approx(whole * math.expm1(quantile * error / whole))
    assert low - mean == pytest.approx(whole * math.expm1(-quantile * error / whole))
    assert low < mean < high and (low < 0) == (mean == 0)


def test_unit_is_left_out_as_a_whole() -> None:
    clusters = Clusters("photograph", np.array([0, 1, 0, 2]))
    found = leave_one_out({"x": np.array([1.0, 2.0, 3.0, 7.0])}, _same, clusters)["x"]
    np.testing.assert_allclose(found, [4.5, 11 / 3, 2])


@pytest.mark.parametrize(("by_photograph", "coverage"), [(True, 0.95), (False, 0.6)])
def test_tiles_of_a_photograph_count_once(by_photograph: bool, coverage: float) -> None:
    """60 photographs of 8 tiles, which share all but a twentieth of the variance.

    Taken one by one their interval is √8 too narrow: 2Φ(1.96/√(8 · 0.95 + 0.05)) − 1 = 0.52. Of 400
    runs three standard errors are 3 %, and 8 % of the latter.
    """
    rng, hits = np.random.default_rng(2), 0
    of = np.arange(60).repeat(8)
    clusters = Clusters("photograph", of) if by_photograph else every_one(480, "image")
    for _ in range(400):
        x = rng.normal(5, math.sqrt(0.95), 60)[of] + rng.normal(0, math.sqrt(0.05), 480)
        left_out = leave_one_out({"x": x}, _same, clusters)["x"]
        low, high = jackknife_interval(float(x.mean()), left_out, 0.95) or (0, 0)
        hits += low < 5 < high
    if by_photograph:
        assert hits / 400 == pytest.approx(coverage, abs=0.033)
    else:
        assert hits / 400 < coverage


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_interval(bad: float) -> None:
    rows = {"x": np.array([1.0, bad, 3.0]), "y": np.arange(3.0)}
    found = leave_one_out(rows, _same, every_one(3, "image"))
    assert jackknife_interval(bad, found["x"], 0.95) is None
    assert jackknife_interval(1.0, found["y"], 0.95) is not None


def _entries(*names: str) -> list[Entry]:
    return [Entry(name, 0, group=name[0]) for name in names]


@pytest.mark.parametrize(
    ("names", "kind", "settled", "of"),
    [
        (
            ["a/koala_000.png", "a/moose_000.png", "a/koala_001.png"],
            "auto",
            "photograph",
            [0, 1, 0],
        ),
        (["a/koala_000000_0.png", "a/koala_000012_0.png"], "auto", "photograph", [0, 0]),
        (["a/koala.png", "a/moose.png"], "auto", "image", [0, 1]),
        (["a/koala_000.png", "a/koala_001.png"], "image", "image", [0, 1]),
        (["a/x.png", "b/x.png", "a/y.png"], "folder", "folder", [0, 1, 0]),
        (["b/x.png", "a/x.png", "b/y.png"], "class", "class", [0, 1, 0]),
    ],
)
def test_units_are_what_the_flag_says(
    names: list[str], kind: str, settled: str, of: list[int]
) -> None:
    found = clusters_of(_entries(*names), kind)
    assert found.kind == settled and found.of.tolist() == of
    assert found.count == max(of) + 1


def test_photographs_that_no_name_tells_are_refused() -> None:
    with pytest.raises(DataError, match="--cluster photograph"):
        clusters_of(_entries("a.png", "b.png"), "photograph")


def test_section_says_how_many_units_an_interval_takes() -> None:
    few = every_one(12, "photograph").section()
    assert few["text"] == f"95 % intervals take {MIN_UNITS} photographs; here are 12."
    assert few["count"] == 12 and few["needed"] == MIN_UNITS
    assert "over 190 classes" in every_one(190, "class").section()["text"]
    assert every_one(MIN_UNITS, "image").is_enough and not every_one(MIN_UNITS - 1, "x").is_enough


def _image(rng: np.random.Generator) -> Histograms:
    """The histograms of a 32² image whose std is right up to a factor of its own."""
    std = np.exp(rng.uniform(0.5, 3, (32, 32)))
    error = rng.normal(0, std) * rng.uniform(0.7, 1.4)
    return calibrate(error, np.zeros_like(error), std**2)[1]


def _ratio(sums: Histograms) -> float:
    return float(sums.square.sum() / sums.variance.sum())


@pytest.mark.parametrize("num_images", [60, 130])
def test_histograms_give_the_interval_of_means(
    num_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Σ error² / Σ v, which both ways can compute; 130 images are 44 groups of three."""
    monkeypatch.setattr(intervals, "MIN_UNITS", 60)
    rng, clusters = np.random.default_rng(4), every_one(num_images, "image")
    images, parts, total = [_image(rng) for _ in range(num_images)], HistogramParts(clusters), None
    total = Histograms()
    for image in images:
        parts.add({"nets": image, "samples": image})
        total.add(image)
    left_out = parts.left_out("nets", total, _ratio)
    assert len(left_out) == (60 if num_images == 60 else 44)
    rows = {
        "square": np.array([image.square.sum() for image in images]),
        "variance": np.array([image.variance.sum() for image in images]),
    }
    expected = leave_one_out(rows, lambda m: {"r": m["square"] / m["variance"]}, clusters)["r"]
    found = jackknife_interval(_ratio(total), left_out, 0.95) or [0, 0]
    wanted = jackknife_interval(_ratio(total), expected, 0.95) or [0, 0]
    if num_images == 60:
        assert found == pytest.approx(wanted, rel=1e-9)
    # the std of 44 groups has a standard error of 11 %
    assert found[1] - found[0] == pytest.approx(wanted[1] - wanted[0], rel=0.3)


def test_histograms_of_equal_images_have_an_interval_without_width() -> None:
    image, parts, total = _image(np.random.default_rng(5)), None, Histograms()
    parts = HistogramParts(every_one(MIN_UNITS, "image"))
    for _ in range(MIN_UNITS):
        parts.add({"nets": image})
        total.add(image)
    np.testing.assert_allclose(parts.left_out("nets", total, ause), ause(image), rtol=1e-9)
