"""What the theorem predicts of a sweep and what was seen, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

from noisy_label.files import TEST
from noisy_label.flags import BIASED, GENERATED, UNIFORM
from noisy_label.summary import Prediction, Row, Summary, share_per_alpha
from utils.report.html import number

NAMES = MappingProxyType({UNIFORM: "uniform", BIASED: "biased", GENERATED: "generated"})
_WRONG = MappingProxyType(
    {
        UNIFORM: "a wrong label is any other class",
        BIASED: "a wrong label is the next class",
        GENERATED: "labels are wrong where a net is unsure",
    }
)
_HALF = 0.5


def by_kind(summary: Summary) -> Mapping[str, Sequence[Row]]:
    """Noise type → its runs, from most to fewest right labels."""
    return {
        kind: [row for row in summary["runs"] if row["noise_type"] == kind]
        for kind in NAMES
        if kind in summary["theorem"]
    }


def theorem_in_words() -> str:
    """What is predicted of all noise, whatever its law."""
    return (
        "The theorem predicts: wrong labels do no harm as long as the right class is still the "
        "likeliest label."
    )


def all_in_words(summary: Summary) -> str:
    """What was seen over all runs: the mean |difference| of accuracies from those predicted."""
    clean = summary["clean"][TEST]["accuracy"]["mean"]
    gaps = [_gap(row) for row in summary["runs"]]
    return (
        f"Seen: a net that has learned from right labels is right on {_percent(clean)} of the test "
        "images. With wrong ones, accuracy differs from the prediction by "
        f"{number(sum(gaps) / len(gaps), 2)}, on average over {len(gaps)} kinds and shares of them."
    )


def seen_in_words(kind: str, rows: Sequence[Row], theorem: Prediction) -> str:
    """Of one noise type: where accuracy is predicted to fall, and where it fell."""
    first, last = rows[0], rows[-1]
    worst, where = max(rows, key=_gap), half_at(rows)
    half = "" if where is None else f", and passes one half at {number(where, 2)}"
    return (
        f"{NAMES[kind].capitalize()} noise ({_WRONG[kind]}): accuracy should fall "
        f"{_predicted(kind, rows, theorem)}. It is {_percent(_accuracy(first))} at a share of "
        f"{_share(first)}, {_percent(_accuracy(last))} at {_share(last)}{half}; farthest from the "
        f"prediction, by {number(_gap(worst), 2)}, at {_share(worst)}."
    )


def _predicted(kind: str, rows: Sequence[Row], theorem: Prediction) -> str:
    scale = share_per_alpha(rows)
    flip = number(scale * theorem["flip"], 2)
    if kind == GENERATED:
        low, high = (number(scale * end, 2) for end in theorem["flip_quantiles"])
        return (
            f"image by image: at a share of {flip} right labels it is lost for half of them, "
            f"between {high} and {low} for nine in ten"
        )
    below = ", below all that were tried" if theorem["flip"] < _share_of(rows[-1]) else ""
    return f"at a share of {flip} right labels{below}"


def half_at(rows: Sequence[Row]) -> float | None:
    """The share of right labels at which half of the test images are right, between two runs.

    None where accuracy never crosses one half on its way down.
    """
    for before, behind in pairwise(rows):
        high, low = _accuracy(before), _accuracy(behind)
        if high >= _HALF > low:
            way = (high - _HALF) / (high - low)
            return _share_of(before) + way * (_share_of(behind) - _share_of(before))
    return None


def _gap(row: Row) -> float:
    return abs(_accuracy(row) - row["test"]["predicted_accuracy"]["mean"])


def _accuracy(row: Row) -> float:
    return row["test"]["accuracy"]["mean"]


def _share_of(row: Row) -> float:
    return row["noise"]["ratio_of_correct_labels"]["mean"]


def _share(row: Row) -> str:
    return number(_share_of(row), 2)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"
