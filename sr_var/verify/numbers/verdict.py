"""Whether nets and samples agree within a margin, in a word each and in a sentence.

The word is that of two one-sided tests on an interval of `intervals`; with too few units there is
none, since it would be wrong too often (docs/theory.md, eq. 38; docs/verification.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypedDict

from sr_var.verify.numbers.intervals import Clusters
from utils.metrics import percent

# three tests at once, each at a third of 5 % (Bonferroni): all verdicts are right at 95 %
VERDICT_LEVEL = 1 - 2 * 0.05 / 3


class _Part(NamedTuple):
    """A metric that is held against the margin: its name, and how it is said.

    `is_square`: what it estimates is the root of a square, which cannot be negative.
    """

    metric: str
    label: str
    of: str
    is_square: bool


_PARTS = {
    "mean": _Part("mean.relative_rms_error", "mean", " of a std (rms)", True),
    "variance": _Part("var.relative_rms_error", "variance", " of itself (rms)", True),
    "bias": _Part("var.relative_bias", "bias of the variance", "", False),
}
VERDICT_METRICS = tuple(part.metric for part in _PARTS.values())
_EXPLAINED = "the samples' noise is taken out"


class VerdictOfPart(TypedDict):
    """What is said of the mean, the variance or the bias; None for what is not known.

    `standard_error` is of the square of the value of mean and variance, also with too few units.
    """

    verdict: str | None
    value: float
    interval: list[float] | None
    standard_error: float | None


class Verdict(TypedDict):
    """Section `verdict` of `results.json`; `level` is that of its intervals."""

    margin: float
    level: float
    num_units_needed: int
    mean: VerdictOfPart
    variance: VerdictOfPart
    bias: VerdictOfPart
    text: str


def equivalence(interval: list[float] | None, margin: float, *, is_square: bool) -> str:
    """Two one-sided tests: an interval of level 1 − 2α against ±margin is right at 1 − α.

    `equivalent` if it lies within, `different` if it lies without, else `undecided`. Source:
    Schuirmann, "A comparison of the two one-sided tests procedure …", 1987. The root of a square
    is never below 0 (`is_square`), however far the noise takes its estimate there: it differs only
    above the margin.
    """
    if interval is None:
        return "undecided"
    low, high = interval
    if high < margin and (is_square or low > -margin):
        return "equivalent"
    return "different" if low > margin or (high < -margin and not is_square) else "undecided"


def verdict(
    metrics: Mapping[str, float],
    intervals: Mapping[str, list[float] | None],
    errors: Mapping[str, float | None],
    margin: float,
    clusters: Clusters,
) -> Verdict:
    """Section `verdict`: mean, variance and bias of the variance, all as linear shares.

    A margin of 0 gives the intervals and no verdict. With too few units there is neither.
    `intervals` are of `VERDICT_LEVEL` and `errors` standard errors of squares, by the name of the
    metric.
    """
    parts: dict[str, VerdictOfPart] = {}
    said = []
    for key, part in _PARTS.items():
        value = metrics[part.metric]
        interval = intervals.get(part.metric) if clusters.is_enough else None
        # a metric that is not known has no verdict
        is_known = margin > 0 and math.isfinite(value) and clusters.is_enough
        word = equivalence(interval, margin, is_square=part.is_square) if is_known else None
        parts[key] = {
            "verdict": word,
            "value": value,
            "interval": interval,
            "standard_error": errors.get(part.metric),
        }
        said.append(f"{part.label} {word + ', ' if word else ''}{_said(value, interval, part)}")
    return {
        "margin": margin,
        "level": VERDICT_LEVEL,
        "num_units_needed": clusters.needed,
        "mean": parts["mean"],
        "variance": parts["variance"],
        "bias": parts["bias"],
        "text": _sentence("; ".join(said), margin, clusters),
    }


def _sentence(said: str, margin: float, clusters: Clusters) -> str:
    num, of = clusters.count, clusters.noun
    if not clusters.is_enough:
        head = f"No verdict: it takes {clusters.needed} {of}, here are {num}. "
        return f"{head if margin else ''}Estimates: {said} ({_EXPLAINED})."
    level = f"{100 * VERDICT_LEVEL:.1f} % intervals over {num} {of}"
    if not margin:
        return f"Errors: {said} ({level}; {_EXPLAINED})."
    head = f"Nets and samples, margin ±{100 * margin:g} %: "
    return f"{head}{said} ({level}: all three verdicts hold at 95 %; {_EXPLAINED})."


def _said(value: float, interval: list[float] | None, part: _Part) -> str:
    """`off by 4.1 % of a std (rms) [3.2, 5]`; what cannot be negative is said from 0 on."""
    if not math.isfinite(value):
        return "not known"
    ends = [value, *(interval or [])]
    shown = [percent(max(end, 0.0) if part.is_square else end) for end in ends]
    brackets = f" [{shown[1]}, {shown[2]}]" if interval else ""
    return f"{'off by ' if part.is_square else ''}{shown[0]} %{part.of}{brackets}"
