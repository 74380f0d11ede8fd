"""The content of `results.json`: all images together, with intervals and verdict.

Fixed in size: neither pixels nor images are listed (but for the pixels of a scatter plot). It reads
nothing but records of results and samples, for cost and models; `show.tables` says it in text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np

from sr_var.flags.verify import VerificationFlags
from sr_var.results.moments import Array
from sr_var.verify.numbers.breakdown import Breakdown
from sr_var.verify.numbers.by_image import class_rows, worst_images
from sr_var.verify.numbers.calibrated import CalibratedSection
from sr_var.verify.numbers.calibration import (
    Curves,
    Histograms,
    ause,
    curves,
    ence,
    spread_skill_ratio,
    spread_skill_slope,
)
from sr_var.verify.numbers.epistemic import NUM_NETS
from sr_var.verify.numbers.equivalent import equivalent_text
from sr_var.verify.numbers.floors import TruthSection, truth_text
from sr_var.verify.numbers.intervals import (
    Clusters,
    ClustersSection,
    HistogramParts,
    interval_of_square,
    jackknife_error,
    jackknife_interval,
    leave_one_out,
)
from sr_var.verify.numbers.known_law import Expected
from sr_var.verify.numbers.metrics import (
    ImageResult,
    Metrics,
    averages,
    known,
    pooled_metrics,
    signed_root,
)
from sr_var.verify.numbers.reference import (
    ReferenceSection,
    expected_of_normal,
    expected_of_order,
)
from sr_var.verify.numbers.verdict import VERDICT_LEVEL, VERDICT_METRICS, Verdict, verdict
from sr_var.verify.read.records import BudgetRow, Cost, GivenClass, cost, models_section

MAX_SCATTER = 4000
_OF_HISTOGRAMS = (
    ("ence", ence),
    ("ause", ause),
    ("spread_skill_ratio", spread_skill_ratio),
    ("spread_skill_slope", spread_skill_slope),
)
# metrics of these sections are averaged over images as they are, where pooled ones do not go first
_OWN_SECTIONS = ("mean.", "var.", "high_res.", "edges.")
# roots of what may be negative: the interval is that of the square, whose law has no kink at 0
_SQUARES = {
    "mean.relative_rms_error": "mean.relative_mse",
    "var.relative_rms_error": "var.relative_squared_error",
}
# squared errors, and what is one over such an error
_SKEWED = (
    ".corrected_mse",
    ".corrected_squared_error",
    ".relative_mse",
    ".relative_raw_mse",
    ".relative_raw_squared_error",
    ".relative_squared_error",
    ".equivalent_samples_mean",
    ".equivalent_samples_variance",
)
Intervals: TypeAlias = dict[str, list[float] | None]

ByRoute: TypeAlias = dict[str, Metrics]


class UnitsSection(TypedDict):
    """What a grey level, a 255th of the range of values, is in units of the images."""

    low: float
    high: float
    grey_level: float
    text: str


class _OfSome(TypedDict, total=False):
    mean: Metrics  # this and the next three: where there are samples
    ceiling: Metrics
    verdict: Verdict
    paired: Metrics
    ranks: dict[str, Any]
    scatter: dict[str, list[float]]
    truth: TruthSection
    epistemic: Metrics  # of several mean nets
    calibrated: CalibratedSection  # where a calibration was given
    units: UnitsSection  # of images with another range of values than grey levels
    class_cond: GivenClass  # where nets or samples are given the class, too
    models: dict[str, list[str]]  # role → sha256 of the checkpoints, as far as recorded
    degradation: str  # what the nets see, where that is not block means
    pixels: str  # `hidden` where laws are compared at hidden pixels alone
    trained_degradation: str  # what they were trained on, where that is another
    samples_trained_degradation: str  # likewise the network of the samples
    budget: list[BudgetRow]  # the page's alone, from budget.json
    provenance: list[tuple[str, list[str]]]  # likewise, label and what is recorded


class Summary(_OfSome):
    """`results.json`; docs/file_formats.md lists the keys."""

    num_images: int
    num_samples: int
    num_images_with_float_moments: int
    left_out: dict[str, int]
    var: Metrics
    high_res: Metrics
    edges: Metrics
    calibration: ByRoute
    reference: ReferenceSection
    consistency: ByRoute
    clusters: ClustersSection
    intervals: Intervals
    cost: Cost
    curves: dict[str, Curves]
    pit: dict[str, Any]
    groups: dict[str, Any]
    worst: dict[str, list[dict[str, Any]]]


class Totals:
    """Add up what does not belong to one image, in the order of the images."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters, self._parts = clusters, HistogramParts(clusters)
        self.histograms: dict[str, Histograms] = {}
        self._scatter: list[Array] = []
        self._expected: dict[str, Expected] = {}
        self.breakdown = Breakdown()
        self._num_images = self._num_known = 0

    def add(self, result: ImageResult) -> None:
        """Take in one image."""
        assert result.histograms is not None and result.sums is not None
        self.breakdown.add(result.sums)
        for route, histograms in result.histograms.items():
            self.histograms.setdefault(route, Histograms()).add(histograms)
        self._parts.add(result.histograms)
        self._scatter.append(result.scatter)
        self._num_images += 1
        self._num_known += result.expected is not None
        for route, expected in (result.expected or {}).items():
            if route in self._expected:
                self._expected[route].add(expected)
            else:
                self._expected[route] = expected

    @property
    def expected(self) -> dict[str, Expected]:
        """What the known law would show, by route; empty unless every image has one."""
        return self._expected if self._num_known == self._num_images else {}

    def intervals(self) -> Intervals:
        """95 % intervals of all but ENCE: a mean of absolute values has none that would hold."""
        return {
            f"calibration.{route}.{name}": jackknife_interval(
                metric(sums), self._parts.left_out(route, sums, metric), 0.95
            )
            for route, sums in self.histograms.items()
            for name, metric in _OF_HISTOGRAMS
            if metric is not ence
        }

    def scatter(self) -> dict[str, list[float]]:
        """At most 4000 pixels, five digits each."""
        pairs = np.concatenate(self._scatter, axis=1)  # (2, k)
        if pairs.shape[1] > MAX_SCATTER:
            pairs = pairs[:, np.linspace(0, pairs.shape[1] - 1, MAX_SCATTER).astype(int)]
        nets, samples = ([float(f"{value:.5g}") for value in row] for row in pairs)
        return {"std_nets": nets, "std_samples": samples}


def scatter_per_image(num_images: int) -> int:
    """Pixels that each image gives to the scatter plot."""
    return max(1, MAX_SCATTER // max(num_images, 1))


def summarise(rows: Sequence[ImageResult], totals: Totals, flags: VerificationFlags) -> Summary:
    """All sections; docs/file_formats.md lists them."""
    own = _own_metrics(rows)
    clusters = totals.clusters
    found, of_any = estimates(*arrays_of(rows), clusters)
    replicates = of_any if clusters.is_enough else {}
    intervals = intervals_of(found, replicates)
    counted = {name: value for name, value in averages(own).items() if ".num_" in name}
    sections = nested({**found, **counted, **_of_all_pixels(rows, totals)})
    if "truth" in sections:
        of_nets = sections["truth"]["nets"], intervals, flags.num_samples
        of_truth = sections["truth"], replicates, flags.num_samples, clusters
        sections["truth"]["text"] = f"{equivalent_text(*of_nets)} {truth_text(*of_truth)}"
    if "epistemic" in sections:
        sections["epistemic"]["num_nets"] = int(rows[0].means[NUM_NETS])
    result = {
        "num_images": len(rows),
        "num_samples": flags.num_samples,
        "num_images_with_float_moments": sum(row.is_float for row in rows),
        "left_out": left_out(own),
        **sections,
        "clusters": clusters.section(),
        "intervals": intervals | (totals.intervals() if replicates else {}),
    }
    if flags.num_samples:
        kept = {name: replicates[name] for name in _of_verdict(replicates)}
        of_verdict = intervals_of(found, kept, VERDICT_LEVEL)
        errors = _errors_of_verdict(found, of_any)
        result["verdict"] = verdict(found, of_verdict, errors, flags.margin, clusters)
    result |= {"cost": cost(flags), **models_section(flags)}
    result["curves"] = {route: curves(sums) for route, sums in totals.histograms.items()}
    result["reference"] = _reference(result["calibration"], totals, flags.num_samples)
    known_pit = {route: part.pit / part.pit.sum() for route, part in totals.expected.items()}
    result |= totals.breakdown.sections(flags.num_samples, known_pit)
    if "sampler_law" in result:
        result["reference"]["sampler_law"] = result.pop("sampler_law")
    result["groups"]["class"] = class_rows(rows)
    result["worst"] = worst_images(rows)
    if flags.num_samples:
        result["scatter"] = totals.scatter()
    return cast(Summary, result)


def _reference(calibration: ByRoute, totals: Totals, num_samples: int) -> ReferenceSection:
    """What exact laws would show in the place of both routes."""
    found: ReferenceSection = {"curves": {}}
    for route, sums in totals.histograms.items():
        n = num_samples if route == "samples" else None
        of_order, found["curves"][route] = expected_of_order(sums, n)
        of_route = {**expected_of_normal(calibration[route], n), **of_order}
        if route == "samples":
            found["samples"] = of_route
        else:
            found["nets"] = of_route
    for route, expected in totals.expected.items():
        metrics, found["curves"][route] = expected.metrics()
        found.setdefault("known_law", {})[route] = metrics
    return found


def estimates(
    own: Mapping[str, Array], means: Mapping[str, Array], clusters: Clusters
) -> tuple[Metrics, dict[str, Array]]:
    """All metrics by dotted name, and each without every unit in turn, (num_units,).

    The latter is empty where there is one unit. `own`: metrics of each image that are averaged as
    they are, over the images where they are finite, if any; `means`: what `pooled_metrics` takes;
    both (num_images,).
    """
    rows = dict(means)
    for name, values in own.items():
        is_known = np.isfinite(values)
        is_known = is_known if is_known.any() else np.ones_like(is_known)
        rows[f"own.{name}"] = np.where(is_known, values, 0.0)
        rows[f"counted.{name}"] = is_known.astype(np.float64)

    def metrics_of(part: Mapping[str, Array]) -> Mapping[str, Array]:
        with np.errstate(invalid="ignore"):  # no image that is known may be left
            kept = {name: part[f"own.{name}"] / part[f"counted.{name}"] for name in own}
        # pooled ones behind averages: a ratio of sums takes the place of a mean of ratios
        return {**kept, **pooled_metrics({name: part[name] for name in means})}

    found = metrics_of({name: np.asarray(values.mean()) for name, values in rows.items()})
    replicates = leave_one_out(rows, metrics_of, clusters) if clusters.count > 1 else {}
    return {name: float(value) for name, value in found.items()}, replicates


def intervals_of(
    values: Mapping[str, float], replicates: Mapping[str, Array], level: float = 0.95
) -> Intervals:
    """Interval of every metric by dotted name; a root has that of its square, and then the root."""
    found: Intervals = {}
    for name, part in replicates.items():
        interval = interval_of_square if name.endswith(_SKEWED) else jackknife_interval
        found[name] = interval(values[name], part, level)
    for root, square in _SQUARES.items():
        if square in found:
            ends = found[square]
            found[root] = ends and [float(end) for end in signed_root(np.array(ends))]
    return found


def _of_verdict(replicates: Mapping[str, Array]) -> list[str]:
    """The metrics of the verdict and their squares."""
    return [name for name in (*VERDICT_METRICS, *_SQUARES.values()) if name in replicates]


def _errors_of_verdict(found: Metrics, replicates: Mapping[str, Array]) -> dict[str, float | None]:
    """Standard errors of the metrics of the verdict, of a root that of its square."""
    return {
        name: jackknife_error(found[square], replicates[square])
        for name in VERDICT_METRICS
        if (square := _SQUARES.get(name, name)) in replicates
    }


def arrays_of(rows: Sequence[ImageResult]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Metrics that are averaged over images as they are, and means over pixels, (num_images,).

    The former are nan where they do not count (`metrics.known`).
    """
    by_image, own = _own_metrics(rows), {}
    for name, is_known in known(by_image).items():
        if ".num_" not in name:
            values = np.array([metrics[name] for metrics in by_image], np.float64)
            own[name] = np.where(is_known, values, np.nan)
    names = [name for name in rows[0].means if all(name in row.means for row in rows)]
    return own, {name: np.array([row.means[name] for row in rows], np.float64) for name in names}


def _own_metrics(rows: Sequence[ImageResult]) -> list[Metrics]:
    """Of each image the metrics that are averaged over images as they are."""
    names = [name for name in rows[0].metrics if name.startswith(_OWN_SECTIONS)]
    return [{name: row.metrics[name] for name in names} for row in rows]


def _of_all_pixels(rows: Sequence[ImageResult], totals: Totals) -> Metrics:
    """Of the histograms of all images."""
    found: Metrics = {}
    for route, sums in totals.histograms.items():
        for name, metric in _OF_HISTOGRAMS:
            found[f"calibration.{route}.{name}"] = metric(sums)
        num_floored = int(sum(row.means[f"{route}.num_floored"] for row in rows))
        found[f"calibration.{route}.num_floored"] = num_floored
    return found


def left_out(rows: Sequence[Metrics]) -> dict[str, int]:
    """Metric → images without a finite value, which its average is without; none where 0."""
    found = {name: int(np.count_nonzero(~is_known)) for name, is_known in known(rows).items()}
    return {name: count for name, count in found.items() if count}


def flat_metrics(summary: Mapping[str, object]) -> Metrics:
    """Dotted name → value, for TensorBoard, which has no place for infinity, lists and words."""
    of_all = {"intervals", "curves", "scatter", "verdict", "left_out"}
    skipped = of_all | {"clusters", "groups", "worst"}
    return {
        name: value
        for section, part in summary.items()
        if isinstance(part, Mapping) and section not in skipped
        for name, value in _leaves(part, f"{section}.")
    }


def _leaves(part: Mapping[str, object], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + key, value


def nested(flat: Mapping[str, float]) -> dict[str, Any]:
    """Sections of sections from dotted names."""
    result: dict[str, Any] = {}
    for dotted, value in flat.items():
        *sections, key = dotted.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return result
