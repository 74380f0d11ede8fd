"""What a sweep found, in plain words: where accuracy should fall, and where it did."""

from __future__ import annotations

from typing import Any

import pytest

from noisy_label.flags import BIASED, GENERATED, UNIFORM
from noisy_label.summary import share_per_alpha
from noisy_label.words import all_in_words, by_kind, half_at, seen_in_words


def _row(kind: str, share: float, accuracy: float, predicted: float, alpha: float = 0.0) -> Any:
    figures = {"accuracy": accuracy, "predicted_accuracy": predicted}
    return {
        "noise_type": kind,
        "alpha": alpha or share,
        "noise": {
            "ratio_of_correct_labels": {"mean": share, "interval": None},
            "expected_ratio": {"mean": share, "interval": None},
        },
        "test": {name: {"mean": value, "interval": None} for name, value in figures.items()},
    }


BIASED_ROWS = [_row(BIASED, 0.8, 0.96, 1.0), _row(BIASED, 0.6, 0.7, 1.0), _row(BIASED, 0.4, 0.3, 0)]
UNIFORM_ROWS = [_row(UNIFORM, 0.8, 0.97, 1.0), _row(UNIFORM, 0.2, 0.9, 1.0)]
SUMMARY: Any = {
    "clean": {"test": {"accuracy": {"mean": 0.98, "interval": None}}},
    "runs": [*UNIFORM_ROWS, *BIASED_ROWS],
    "theorem": {BIASED: {"flip": 0.5}, UNIFORM: {"flip": 0.1}},
}


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_half_of_the_images_is_passed_on_the_line_between_two_runs() -> None:
    assert half_at(BIASED_ROWS) == pytest.approx(0.5)
    assert half_at([BIASED_ROWS[0], BIASED_ROWS[2]]) == pytest.approx(0.4 + 0.4 * 0.2 / 0.66)
    assert half_at(UNIFORM_ROWS) is None
    assert half_at(BIASED_ROWS[2:]) is None


def test_a_noise_that_breaks_is_told_with_both_points() -> None:
    said = _plain(seen_in_words(BIASED, BIASED_ROWS, {"flip": 0.5}))
    assert "should fall at a share of 0.5 right labels. " in said
    assert "96 % at a share of 0.8, 30 % at 0.4, and passes one half at 0.5;" in said
    assert said.endswith("by 0.3, at 0.6.")


def test_a_noise_that_should_not_break_among_the_shares_says_so() -> None:
    said = _plain(seen_in_words(UNIFORM, UNIFORM_ROWS, {"flip": 0.1}))
    assert "at a share of 0.1 right labels, below all that were tried. " in said
    assert "one half" not in said


def test_generated_noise_breaks_image_by_image_at_shares_below_alpha() -> None:
    rows = [_row(GENERATED, 0.8, 0.9, 0.9, alpha=0.9), _row(GENERATED, 0.5, 0.6, 0.7, alpha=0.55)]
    assert share_per_alpha(rows) == pytest.approx(0.8 / 0.9)
    said = seen_in_words(GENERATED, rows, {"flip": 0.45, "flip_quantiles": [0.27, 0.54]})
    assert "at a share of 0.4 right labels it is lost for half of them" in said
    assert "between 0.48 and 0.24 for nine in ten" in said


def test_all_runs_together_are_their_mean_difference_from_the_prediction() -> None:
    said = _plain(all_in_words(SUMMARY))
    assert "98 % of the test images" in said
    gaps = [0.03, 0.1, 0.04, 0.3, 0.3]
    assert f"by {sum(gaps) / 5:.2g}, on average over 5 kinds" in said
    assert {kind: len(rows) for kind, rows in by_kind(SUMMARY).items()} == {UNIFORM: 2, BIASED: 3}
