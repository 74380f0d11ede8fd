"""Bootstrap intervals over images, and the verdict of equivalence.

The image is the cluster: its pixels are drawn together, since they are not independent. Works on
means over the pixels of each image, so a replicate costs one weighted average; or, for metrics that
need the order of all pixels, on the histograms of each image as it passes by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

import numpy as np

from sr_var.verify.numbers.calibration import NUM_BINS, Array, Histograms

NUM_REPLICATES = 2000
_AT_A_TIME = 100
_NUM_OF_HISTOGRAMS = 400
# bins of a histogram that replicates take together: 0.7 % of a std, 1/4 grey level of an error
_MERGED_BINS = 4


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


class VerdictOfPart(TypedDict):
    """What is said of the mean, the variance or the bias; None for what is not known."""

    verdict: str | None
    value: float
    interval: list[float] | None


class Verdict(TypedDict):
    """Section `verdict` of `results.json`."""

    margin: float
    mean: VerdictOfPart
    variance: VerdictOfPart
    bias: VerdictOfPart
    text: str


def bootstrap(
    rows: Mapping[str, Array],
    metrics_of: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    seed: int,
    num_replicates: int = NUM_REPLICATES,
) -> dict[str, Array]:
    """Replicate of every metric, (num_replicates,): images drawn with replacement.

    Source: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8
    (whole clusters are resampled, nothing within them). `rows`: name → one mean over pixels per
    image, (num_images,); images count alike. `metrics_of` makes metrics of means, entry by entry.
    """
    names = list(rows)
    table = np.stack([rows[name] for name in names], axis=1)  # (num_images, num_names)
    num_images, rng = len(table), np.random.default_rng(seed)
    parts = []
    for start in range(0, num_replicates, _AT_A_TIME):
        num = min(_AT_A_TIME, num_replicates - start)
        drawn = rng.integers(0, num_images, (num, num_images))
        drawn += num_images * np.arange(num)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=num * num_images)
        with np.errstate(invalid="ignore"):  # 0 · inf, of the psnr of equal images
            parts.append(counts.reshape(num, num_images) @ table / num_images)
    means = np.concatenate(parts)  # (num_replicates, num_names)
    found = metrics_of({name: means[:, i] for i, name in enumerate(names)})
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


class HistogramReplicates:
    """Replicates of the sums of histograms: each image counts Poisson(1) times in each of them.

    One pass, and a size that the number of images does not change. Source: Chamandy et al.,
    "Estimating uncertainty for massive data streams", 2012.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._sums: dict[str, dict[str, Array]] = {}

    def add(self, by_route: Mapping[str, Histograms]) -> None:
        """Take in one image."""
        weights = self._rng.poisson(1.0, _NUM_OF_HISTOGRAMS).astype(np.float64)
        for route, histograms in by_route.items():
            sums = self._sums.setdefault(route, {})
            for name, values in vars(histograms).items():
                if len(values) == NUM_BINS:
                    values = values.reshape(-1, _MERGED_BINS).sum(axis=1)
                share = np.outer(weights, values)
                sums[name] = sums[name] + share if name in sums else share

    def replicates(self, route: str, metric: Callable[[Histograms], float]) -> Array:
        """The metric of every replicate that has a pixel, (k,) with k ≤ 400."""
        sums = self._sums[route]
        places = np.flatnonzero(sums["count"].sum(axis=1) > 0)
        replicates = [{name: values[i] for name, values in sums.items()} for i in places]
        return np.array([metric(Histograms(**replicate)) for replicate in replicates])


def percentile_interval(replicates: Array, coverage: float) -> list[float] | None:
    """The central `coverage` of the replicates; None where they are not finite."""
    if not np.isfinite(replicates).all():
        return None
    tail = (1 - coverage) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return [float(low), float(high)]


def equivalence(interval: list[float] | None, margin: float, *, is_square: bool) -> str:
    """Two one-sided tests at 5 %: the 90 % interval against ±margin.

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
    metrics: Mapping[str, float], replicates: Mapping[str, Array], margin: float
) -> Verdict:
    """Section `verdict`: mean, variance and bias of the variance, all as linear shares.

    A margin of 0 gives the intervals and no verdict. `replicates` is empty for a single image.
    """
    parts: dict[str, VerdictOfPart] = {}
    words = []
    for key, part in _PARTS.items():
        value, name = metrics[part.metric], part.metric
        interval = percentile_interval(replicates[name], 0.90) if name in replicates else None
        # a metric that is not known has no verdict
        is_known = margin > 0 and math.isfinite(value)
        word = equivalence(interval, margin, is_square=part.is_square) if is_known else None
        parts[key] = {"verdict": word, "value": value, "interval": interval}
        words.append(f"{part.label} {word + ', ' if word else ''}{_said(value, interval, part)}")
    head = f"Nets and samples, margin ±{100 * margin:g} %: " if margin > 0 else "Errors: "
    return {
        "margin": margin,
        "mean": parts["mean"],
        "variance": parts["variance"],
        "bias": parts["bias"],
        "text": head + "; ".join(words) + " (90 % intervals, the samples' noise subtracted).",
    }


def _said(value: float, interval: list[float] | None, part: _Part) -> str:
    """`off by 4.1 % of a std (rms) [3.2, 5]`; what cannot be negative is said from 0 on."""
    if not math.isfinite(value):
        return "not known"
    ends = [value, *(interval or [])]
    shown = [f"{100 * (max(end, 0.0) if part.is_square else end):.2g}" for end in ends]
    brackets = f" [{shown[1]}, {shown[2]}]" if interval else ""
    return f"{'off by ' if part.is_square else ''}{shown[0]} %{part.of}{brackets}"
