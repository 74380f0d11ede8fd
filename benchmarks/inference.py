"""How often the verification's intervals and verdicts are right, on a law whose truth is known.

    python -m benchmarks.inference --output_dir outputs/bench

The population are pieces of the demo's photographs with samples of the oracle's law
(`benchmarks.inference_data`), under nets that are exact, at the margin, and far off. Each of the
repetitions draws images from it with replacement and computes intervals and verdict as
`sr_var_verification.py` does, whatever the number of images. The truth is the metric of the whole
population. docs/verification.md has the tables.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.inference_data import NUM_SAMPLES, SMALL_SIZE, Net, Population, populations
from sr_var.results.moments import Array
from sr_var.verify.numbers.calibration import Histograms, ause
from sr_var.verify.numbers.intervals import (
    MIN_UNITS,
    Clusters,
    HistogramParts,
    every_one,
    jackknife_error,
    jackknife_interval,
)
from sr_var.verify.numbers.power import NOISE, PARTS, noise_scatter
from sr_var.verify.numbers.summary import estimates, intervals_of
from sr_var.verify.numbers.verdict import VERDICT_LEVEL, VERDICT_METRICS, equivalence
from utils.files.atomic import write_text_atomic

MARGIN = 0.05
COUNTS = (4, 8, 16, 32, 64, 100, 200)
EXACT = Net("exact")
AT_THE_MARGIN = Net("at the margin", MARGIN, MARGIN)
OFF = Net("far off", 0.15, 0.3, bias=MARGIN)
NETS = (EXACT, AT_THE_MARGIN, OFF)
_BIAS = VERDICT_METRICS[-1]
_SHOWN = (
    "mean.mse",
    "mean.relative_rms_error",
    "var.var_error",
    "var.relative_rms_error",
    "var.relative_bias",
    "ceiling.std_disattenuated",
    "high_res.psnr_net",
    "calibration.nets.z2",
    "calibration.nets.crps",
    "calibration.nets.coverage_90",
    "calibration.nets.interval_score_90",
)
_TINY = 1e-9
_SQUARES = ("mean.relative_mse", "var.relative_squared_error", "var.relative_bias")
Draw = Callable[[np.random.Generator], tuple[npt.NDArray[np.int64], Clusters]]


class Outcome(NamedTuple):
    """Shares of many repetitions.

    Attributes:
        covered: of 95 % intervals that hold the truth, by metric.
        equivalent: of `equivalent` at the margin, by metric of the verdict.
        is_any_different: of those with a `different` among the three.
        falsely_equivalent: of `equivalent` by metric, where the margin is the truth itself.
    """

    covered: dict[str, float]
    equivalent: dict[str, float]
    is_any_different: float
    falsely_equivalent: dict[str, float]


Outcomes: TypeAlias = Mapping[tuple[str, int], Outcome]


def independent(num_images: int, num_units: int) -> Draw:
    """Images of their own, with replacement."""

    def draw(rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Clusters]:
        return rng.integers(0, num_images, num_units), every_one(num_units, "image")

    return draw


def tiles(photo: Array, num_photos: int, num_tiles: int, *, by_photograph: bool) -> Draw:
    """Tiles of photographs, which are drawn with replacement."""
    num_pieces = int(np.bincount(photo).max())

    def draw(rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Clusters]:
        first = rng.integers(0, len(photo) // num_pieces, num_photos) * num_pieces
        place = np.argsort(rng.random((num_photos, num_pieces)), axis=1)[:, :num_tiles]
        chosen = (first[:, None] + place).ravel()
        of = np.arange(num_photos).repeat(num_tiles)
        return chosen, Clusters("photograph", of) if by_photograph else every_one(len(of), "image")

    return draw


def repeat(population: Population, draw: Draw, num_repetitions: int, seed: int = 0) -> Outcome:
    """Draw images again and again, and hold intervals and verdicts against the population."""
    rng, num_images = np.random.default_rng(seed), len(population.photo)
    both = population.own, population.means
    truth, _ = estimates(*both, every_one(num_images, "image"))
    hits: dict[str, list[bool]] = {}
    words: dict[str, list[str]] = {name: [] for name in VERDICT_METRICS}
    at_truth: dict[str, list[str]] = {name: [] for name in VERDICT_METRICS}
    for _ in range(num_repetitions):
        chosen, clusters = draw(rng)
        own, means = ({name: part[name][chosen] for name in part} for part in both)
        found, left_out = estimates(own, means, clusters)
        for name, interval in intervals_of(found, left_out).items():
            # a constant, as 1/n, is held by an interval without width
            if interval is not None and interval[1] - interval[0] > _TINY:
                hits.setdefault(name, []).append(interval[0] <= truth[name] <= interval[1])
        for name, interval in intervals_of(found, left_out, VERDICT_LEVEL).items():
            if name in words:
                of = partial(equivalence, interval, is_square=name != _BIAS)
                words[name].append(of(MARGIN))
                at_truth[name].append(of(abs(truth[name])))
    together = [*zip(*words.values(), strict=True)]
    return Outcome(
        {name: float(np.mean(held)) for name, held in hits.items()},
        {name: said.count("equivalent") / num_repetitions for name, said in words.items()},
        sum("different" in said for said in together) / num_repetitions,
        {name: said.count("equivalent") / num_repetitions for name, said in at_truth.items()},
    )


def coverage_of_ause(population: Population, num_units: int, num_repetitions: int) -> float:
    """Share of the 95 % intervals of AUSE that hold that of the images with histograms."""
    rng, images = np.random.default_rng(0), population.histograms
    truth, hits = ause(_sum(images)), 0
    for _ in range(num_repetitions):
        chosen = [images[i] for i in rng.integers(0, len(images), num_units)]
        parts = HistogramParts(every_one(num_units, "image"))
        for image in chosen:
            parts.add({"nets": image})
        total = _sum(chosen)
        left_out = parts.left_out("nets", total, ause)
        low, high = jackknife_interval(ause(total), left_out, 0.95) or (0.0, 0.0)
        hits += low <= truth <= high
    return hits / num_repetitions


def coverage_of_bootstrap(values: Array, num_units: int, num_repetitions: int) -> float:
    """Share of the 95 % percentile intervals of 1000 bootstrap means that hold the true mean.

    For comparison: this is what most evaluations use.
    """
    rng, hits = np.random.default_rng(0), 0
    for _ in range(num_repetitions):
        drawn = values[rng.integers(0, len(values), num_units)]
        means = drawn[rng.integers(0, num_units, (1000, num_units))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits += low <= values.mean() <= high
    return hits / num_repetitions


def _sum(images: Sequence[Histograms]) -> Histograms:
    total = Histograms()
    for image in images:
        total.add(image)
    return total


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def verdict_table(found: Outcomes) -> list[str]:
    """How often verdicts are wrong, and right, by number of images."""
    head = ["images", "exact: different", "at the margin: equivalent (mean, variance, bias)"]
    lines = table_head([*head, "exact: equivalent (mean, variance, bias)"])
    for count in COUNTS:
        exact = found[EXACT.name, count]
        wrong, right = (
            ", ".join(_percent(part[name]) for name in VERDICT_METRICS)
            for part in (found[AT_THE_MARGIN.name, count].falsely_equivalent, exact.equivalent)
        )
        name = str(count) if count >= MIN_UNITS else f"{count} (withheld)"
        lines.append(table_row([name, _percent(exact.is_any_different), wrong, right]))
    return lines


def coverage_table(
    found: Outcomes, of_ause: Mapping[int, float], of_bootstrap: Mapping[int, float]
) -> list[str]:
    """Coverage of 95 % intervals by metric; the lowest and highest of all metrics of each net."""
    lines = table_head(["metric of the net far off", *map(str, COUNTS)])
    for name in _SHOWN:
        cells = [_percent(found[OFF.name, count].covered[name]) for count in COUNTS]
        lines.append(table_row([f"`{name}`", *cells]))
    for name, part in (
        ("`calibration.nets.ause`", of_ause),
        ("`mean.mse`, by the percentile bootstrap", of_bootstrap),
    ):
        shares = (part.get(count) for count in COUNTS)
        cells = ["–" if share is None else _percent(share) for share in shares]
        lines.append(table_row([name, *cells]))
    for word, choose in (("lowest", min), ("highest", max)):
        for net in NETS:
            covered = [found[net.name, count].covered for count in COUNTS]
            extremes = [choose((share, name) for name, share in part.items()) for part in covered]
            cells = [_percent(share) for share, _ in extremes]
            of_least = extremes[COUNTS.index(MIN_UNITS)][1]
            first = f"{word} of the net {net.name} (at {MIN_UNITS}: `{of_least}`)"
            lines.append(table_row([first, *cells]))
    return lines


def cluster_table(population: Population, num_repetitions: int) -> list[str]:
    """What tiles of a photograph do when they are taken for images, and when they are not."""
    lines = table_head(["photographs × tiles", "metric", "tiles as images", "by photograph"])
    for num_photos, num_tiles in ((2, 8), (12, 5), (50, 5)):
        found = [
            repeat(
                population,
                tiles(population.photo, num_photos, num_tiles, by_photograph=is_whole),
                num_repetitions,
            ).covered
            for is_whole in (False, True)
        ]
        for name in ("mean.mse", "var.relative_rms_error", "calibration.nets.crps"):
            cells = [_percent(part[name]) for part in found]
            lines.append(table_row([f"{num_photos} × {num_tiles}", f"`{name}`", *cells]))
    return lines


def scatter_table(of: Mapping[str, Population]) -> list[str]:
    """What an image scatters by, over the laws of `power`: noise of exact nets, and errors."""
    lines = table_head(["part", "noise, over that of a pixel × low-res side", "errors, over e²"])
    found = {}
    for net in (EXACT.name, OFF.name):
        part = of[net]
        every = every_one(len(part.photo), "image")
        values, left_out = estimates(part.own, part.means, every)
        for name, metric in zip(PARTS, _SQUARES, strict=True):
            error = jackknife_error(values[metric], left_out[metric]) or 0.0
            found[net, name] = values[metric], error * np.sqrt(every.count)
    for name in PARTS:
        noise = found[EXACT.name, name][1]
        value, scatter = found[OFF.name, name]
        unit = noise_scatter(name, NUM_SAMPLES, SMALL_SIZE) / NOISE[name]
        errors = "–" if name == "bias" else f"{np.sqrt(scatter**2 - noise**2) / value:.2f}"
        lines.append(table_row([name, f"{noise / unit:.2f}", errors]))
    return lines


def table_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table_head(cells: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_row(cells), "|" + "---|" * len(cells)]


def main(argv: list[str] | None = None) -> int:
    """Make the population, repeat, print, write `inference.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_repetitions", type=int, default=1000)
    parser.add_argument("--num_pieces", type=int, default=16, help="of each photograph")
    parser.add_argument("--data_dir", default="data/demo", help="folder of the photographs")
    parser.add_argument("--output_dir", default="outputs/bench")
    args = parser.parse_args(argv)
    num_kept = max(1, args.num_pieces // 4)
    of = populations(args.data_dir, NETS, args.num_pieces, num_histograms=num_kept)
    found = {
        (net, count): repeat(part, independent(len(part.photo), count), args.num_repetitions)
        for net, part in of.items()
        for count in COUNTS
    }
    of_ause = {
        count: coverage_of_ause(of[OFF.name], count, max(10, args.num_repetitions // 2))
        for count in COUNTS
        if count >= MIN_UNITS
    }
    mse = of[OFF.name].own["mean.mse"]
    of_bootstrap = {n: coverage_of_bootstrap(mse, n, args.num_repetitions) for n in COUNTS}
    by_photograph = cluster_table(of[OFF.name], args.num_repetitions)
    scatter = scatter_table(of)
    tables = (
        verdict_table(found),
        coverage_table(found, of_ause, of_bootstrap),
        by_photograph,
        scatter,
    )
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    os.makedirs(args.output_dir, exist_ok=True)
    write_text_atomic(os.path.join(args.output_dir, "inference.md"), text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
