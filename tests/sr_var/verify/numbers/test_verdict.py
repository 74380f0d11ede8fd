"""The words of the verdict, and what is said where there are too few units."""

from __future__ import annotations

import math

import pytest

from sr_var.verify.numbers.intervals import MIN_UNITS, every_one
from sr_var.verify.numbers.verdict import VERDICT_LEVEL, VERDICT_METRICS, equivalence, verdict

ENOUGH, FEW = every_one(120, "photograph"), every_one(12, "photograph")


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
    return dict.fromkeys(VERDICT_METRICS, value)


def _intervals(low: float, high: float) -> dict[str, list[float] | None]:
    return {name: [low, high] for name in VERDICT_METRICS}


def test_sentence_says_scale_word_value_interval_and_level() -> None:
    found = verdict(_metrics(0.01), _intervals(-0.02, 0.047), {}, 0.05, ENOUGH)
    for part in ("mean", "variance", "bias"):
        assert found[part]["verdict"] == "equivalent"
        assert found[part]["interval"] == [-0.02, 0.047]
    assert found["text"] == (
        "Nets and samples, margin ±5 %: mean equivalent, off by 1 % of a std (rms) [0, 4.7]; "
        "variance equivalent, off by 1 % of itself (rms) [0, 4.7]; bias of the variance "
        "equivalent, 1 % [-2, 4.7] (96.7 % intervals over 120 photographs: all three verdicts hold "
        "at 95 %; the samples' noise is taken out)."
    )
    assert found["level"] == VERDICT_LEVEL == pytest.approx(1 - 0.1 / 3)


def test_too_few_photographs_have_no_verdict_and_are_told_how_many_it_takes() -> None:
    found = verdict(_metrics(0.22), _intervals(0.2, 0.23), {}, 0.05, FEW)
    for part in ("mean", "variance", "bias"):
        assert found[part] == {
            "verdict": None,
            "value": 0.22,
            "interval": None,
            "standard_error": None,
        }
    assert found["num_units_needed"] == MIN_UNITS
    assert found["text"] == (
        f"No verdict: it takes {MIN_UNITS} photographs, here are 12. Estimates: mean off by 22 % "
        "of a std (rms); variance off by 22 % of itself (rms); bias of the variance 22 % (the "
        "samples' noise is taken out)."
    )


def test_margin_of_zero_gives_intervals_without_a_verdict() -> None:
    found = verdict(_metrics(0.15), _intervals(0.1, 0.2), {}, 0.0, ENOUGH)
    assert found["mean"]["verdict"] is None and found["mean"]["interval"] is not None
    assert "equivalent" not in found["text"] and "15 %" in found["text"]
    assert "verdict" not in verdict(_metrics(0.15), {}, {}, 0.0, FEW)["text"]


def test_metric_that_is_not_known_has_no_verdict_and_is_said_in_words() -> None:
    """Two or three samples do not tell how noisy their variance is."""
    metrics = {**_metrics(0.02), "var.relative_rms_error": math.nan}
    for clusters in (ENOUGH, FEW):
        found = verdict(metrics, _intervals(0, 0.1), {}, 0.05, clusters)
        assert found["variance"]["verdict"] is None
        assert "nan" not in found["text"] and "variance not known" in found["text"]
