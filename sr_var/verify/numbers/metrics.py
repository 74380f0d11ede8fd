"""The metrics of an image: definitions, and what is left of an image when it has passed by.

All in grey levels and float64, on HWC arrays, by dotted name (`mean.mse`). Two kinds:
`image_metrics` are averaged over images (`averages`). `pooled_metrics` are functions of means over
pixels (`image_means`), whether of one image, of all of them, or of a bootstrap replicate: a ratio
is then always a ratio of sums, never a mean of ratios. Definitions: `sr_var_verification.py`, and
docs/theory.md, eq. 6 to 38. m, v are mean and variance of the nets, x̄, k2 those of n samples.
Where there are no samples, metrics that need them have no name at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sr_var.results.moments import Array, block_means
from sr_var.verify.numbers.breakdown import Sums, image_sums
from sr_var.verify.numbers.calibration import Histograms, calibrate
from sr_var.verify.numbers.epistemic import epistemic_means, epistemic_metrics
from sr_var.verify.numbers.equivalent import equivalent_samples, paired_differences
from sr_var.verify.numbers.floors import Noise, noise_of, truth_means, truth_metrics
from sr_var.verify.numbers.known_law import Expected, expected_of_image
from sr_var.verify.read.images import ImageData
from utils.metrics import MIN_SSIM_SIDE, Moments, mean_abs_error, mse, nmse, psnr, ssim
from utils.seeds import stable_seed
from utils.sizes import Size

Metrics: TypeAlias = dict[str, float]
Known: TypeAlias = npt.NDArray[np.bool_]
ROUTES = ("nets", "samples")
_PLAIN = ("z2", "nll", "crps", "coverage_50", "coverage_68", "coverage_90", "coverage_95")


def compare_mean(data: ImageData) -> Metrics:
    """The mean net against the samples, if any, with the part that is the samples' own noise.

    `floor_mse` = mean k2/n is what the true mean would show against n samples.
    """
    samples = data.samples
    if samples is None:
        return {}
    mean, reference, k2 = data.judged(data.mean, samples.mean, samples.variance)
    mean_k2 = float(np.mean(k2))
    floor = mean_k2 / samples.count
    error = mse(reference, mean)
    return {
        "mse": error,
        "psnr": psnr(reference, mean),
        "nmse": nmse(reference, mean),
        "floor_mse": floor,
        "corrected_mse": error - floor,
        "relative_mse": (error - floor) / max(mean_k2, 1e-12),
    }


def compare_variance(data: ImageData, noise: Noise | None = None) -> Metrics:
    """The variance net against the samples' unbiased variance; without samples on its own.

    The floors are what the true variance would show against n samples; nan below 4 samples.
    `mean_std_samples` is without the bias of √k₂, `correlation` nan where a map has no spread.
    `noise` is `floors.noise_of` the samples, where it is there already.
    """
    samples, (raw,) = data.samples, data.judged(data.variance)
    variance = np.maximum(raw, 0)
    mean_std = float(np.mean(np.sqrt(variance)))
    counts = {
        "num_negative": float(np.count_nonzero(raw < 0)),
        "num_values": float(raw.size),
    }
    if samples is None:
        return {"mean_std_net": mean_std, **counts}
    (k2,) = data.judged(samples.variance)
    noise = Noise(*data.judged(*(noise or noise_of(samples))))
    std = np.sqrt(k2)
    return {
        "var_error": mean_abs_error(k2, variance),
        "std_error": mean_abs_error(std, np.sqrt(variance)),
        "floor_var_error": float(np.mean(noise.variance_floor)),
        "floor_std_error": float(np.mean(noise.std_floor)),
        "mean_std_net": mean_std,
        "mean_std_samples": float(np.mean(noise.std)),
        "correlation": _correlation(np.sqrt(variance), std),
        **counts,
    }


def compare_with_truth(data: ImageData) -> Metrics:
    """Nets, samples (their mean) and bilinear upsampling against the real high-res image.

    The latter is left out where the input has other channels, or another unit.

    `psnr_…` in dB and `ssim_…` (`utils.metrics.ssim`; nan where its window does not fit in), of
    the mean as it is, neither rounded nor clipped.
    """
    images = {"net": data.mean}
    if data.samples is not None:
        images["samples"] = data.samples.mean
    if data.is_like_input:
        images["bilinear"] = data.bilinear
    has_room = min(data.high_res.shape[:2]) >= MIN_SSIM_SIDE
    return {
        **{f"psnr_{which}": psnr(data.high_res, image) for which, image in images.items()},
        **{
            f"ssim_{which}": ssim(data.high_res, image) if has_room else np.nan
            for which, image in images.items()
        },
        "mean_abs_error_net": mean_abs_error(data.high_res, data.mean),
    }


def edge_contrast(data: ImageData) -> Metrics:
    """Standard deviation of the nets where the high-res image has edges and where it is flat.

    Edges are the tenth of the pixels with the largest luminance gradient, flat ground the half with
    the smallest.
    """
    luminance = data.high_res.mean(axis=2)
    gradient = np.hypot(*np.gradient(luminance))
    std = np.sqrt(np.maximum(data.variance, 0)).mean(axis=2)
    is_edge = gradient >= np.quantile(gradient, 0.9)
    is_flat = gradient <= np.quantile(gradient, 0.5)
    return {"std_at_edges": float(std[is_edge].mean()), "std_on_flat": float(std[is_flat].mean())}


def image_metrics(data: ImageData, noise: Noise | None = None) -> Metrics:
    """All metrics that an image has of its own, by dotted name; `noise` as `compare_variance`."""
    sections = {
        "mean": compare_mean(data),
        "var": compare_variance(data, noise),
        "high_res": compare_with_truth(data),
        "edges": edge_contrast(data),
    }
    return {f"{name}.{key}": part[key] for name, part in sections.items() for key in part}


def averages(rows: Sequence[Metrics]) -> Metrics:
    """Mean over images of every metric, of those that have one (`known`); counts are summed."""
    seen, result = known(rows), {}
    for name, is_known in seen.items():
        values = np.array([row[name] for row in rows], np.float64)[is_known]
        result[name] = float(values.sum() if ".num_" in name else values.mean())
    return result


def known(rows: Sequence[Metrics]) -> dict[str, Known]:
    """Of every metric, which images its average is over, (num_images,).

    An image has no finite PSNR where both images are equal, and no correlation where a map has no
    spread. One without a finite PSNR by one route is left out of that of all routes, and so with
    SSIM: their averages are of the same images. Where no image has a finite value, all count.
    """
    finite = {name: np.isfinite([row[name] for row in rows]) for name in rows[0]}
    for start in ("high_res.psnr_", "high_res.ssim_"):
        group = [name for name in finite if name.startswith(start)]
        together = [np.logical_and.reduce([finite[name] for name in group])] * len(group)
        finite |= dict(zip(group, together, strict=True))
    return {name: found if found.any() else np.ones_like(found) for name, found in finite.items()}


def image_means(
    data: ImageData, noise: Noise | None = None
) -> tuple[Metrics, dict[str, Histograms]]:
    """Means over the pixels and channels of one image, and the histograms of each route.

    What holds a law against the real image, or another law, is of hidden pixels alone where X shows
    the others (`ImageData.judged`).
    What is not known (fewer than four samples, no block means) is nan; names that begin with
    `truth` are there only where the exact law is, names about samples only where these are,
    `epistemic` where there are several mean nets. `noise` as `compare_variance`.
    """
    samples, means = data.samples, dict[str, float]()
    if samples is not None:
        means = _of_samples(data, samples, noise or noise_of(samples))
    predictive = {"nets": (data.mean, data.variance)}
    if samples is not None:
        # the predictive law of one more draw: its own spread, and that of the mean of n
        predictive["samples"] = samples.mean, samples.variance * (1 + 1 / samples.count)
    histograms = {}
    for route, (mean, variance) in predictive.items():
        found, histograms[route] = calibrate(*data.judged(data.high_res, mean, variance))
        means |= {f"{route}.{name}": value for name, value in found.items()}
    if samples is not None:
        means["samples.count"] = samples.count
    means |= _consistency(data)
    nets, truth = data.judged(data.mean, data.variance), data.judged_truth
    if truth is not None and samples is not None:
        reference = data.judged(samples.mean, samples.variance)
        means |= truth_means(truth, nets, reference, samples.count)
    if data.epistemic is not None:
        between, high_res = data.judged(data.epistemic, data.high_res)
        means |= epistemic_means(between, nets, high_res, data.num_nets, truth)
    return means, histograms


def _of_samples(data: ImageData, samples: Moments, noise: Noise) -> Metrics:
    """Means of what compares the nets with the samples."""
    mean, variance, of_samples, k2 = data.judged(
        data.mean, data.variance, samples.mean, samples.variance
    )
    scatter, std_scatter = data.judged(noise.scatter, noise.std_scatter)
    v = np.maximum(variance, 0)
    arrays = {
        "mean_square": (mean - of_samples) ** 2,
        "square": (v - k2) ** 2,
        "scatter": scatter,
        "std_scatter": std_scatter,
        **_cross("v", v, "k2", k2),
        **_cross("std_v", np.sqrt(v), "std_k2", np.sqrt(k2)),
    }
    found = {name: float(array.mean()) for name, array in arrays.items()}
    return {**found, "mean_floor": found["k2"] / samples.count}


def pooled_metrics(means: Mapping[str, float | Array]) -> dict[str, Array]:
    """Dotted name → metric, from means over pixels; values may be arrays, one entry a replicate.

    mean.relative_…      squared error, its floor and the difference, over mean k₂
    mean.relative_rms_error  root of the difference, with its sign: a share of the std
    var.squared_error    mean (max(v, 0) − k₂)², its floor mean V̂, the difference, and each over
                         mean (k₂² − V̂), the unbiased mean of σ⁴
    var.relative_rms_error   root of the last, with its sign
    var.relative_bias    mean max(v, 0) / mean k₂ − 1
    ceiling.…            corr(v, k₂); its reliability ρ, 1 − mean V̂ over the variance of k₂ across
                         pixels; corr/√ρ
    ceiling.std_…        the same of the stds, √max(v, 0) and √k₂
    calibration.<route>.…    see `calibration.calibrate`
    consistency.<route>.mean_rms         √ mean (area(m) − X)², grey levels
    paired.…, truth.….equivalent_samples_…   see `equivalent`
    consistency.samples.block_mean_std   √ mean over blocks of the variance of the block mean
    truth.…, epistemic.…     see `floors.truth_metrics`, `epistemic.epistemic_metrics`
    """
    full = {name: np.asarray(value, np.float64) for name, value in means.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        has_samples = "k2" in full
        found = _errors(full) | _ceiling(full) | _ceiling(full, "std_") if has_samples else {}
        for route in ROUTES if has_samples else ROUTES[:1]:
            prefix = f"calibration.{route}."
            found |= {prefix + name: full[f"{route}.{name}"] for name in _PLAIN}
            found[prefix + "sharpness_mean_std"] = full[f"{route}.sharpness_mean_std"]
            found[prefix + "sharpness_rms_std"] = np.sqrt(full[f"{route}.mean_variance"])
            found[prefix + "interval_score_90"] = full[f"{route}.interval_score_90"]
            found[f"consistency.{route}.mean_rms"] = np.sqrt(full[f"{route}.area"])
        if has_samples:
            found["consistency.samples.block_mean_std"] = np.sqrt(full["block_variance"])
            found |= paired_differences(full)
        if "truth.v" in full:
            found |= truth_metrics(full) | equivalent_samples(full)
        if "epistemic.variance" in full:
            found |= epistemic_metrics(full)
    return found


def correlation(x: Array, y: Array, xx: Array, yy: Array, xy: Array) -> Array:
    """Pearson correlation from the means of x, y, x², y² and xy; nan without spread."""
    scale = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    return (xy - x * y) / np.where(scale > 0, np.sqrt(scale), np.nan)


def signed_root(values: Array) -> Array:
    """sign(x) √|x|: a floor-corrected square may be negative, and must stay so in an interval."""
    return np.sign(values) * np.sqrt(np.abs(values))


class Row(Mapping[str, float]):
    """Values by name in a sixth of the memory of a dict, since many rows share their names."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._places = _places_of(tuple(values))
        self._values = np.array([*values.values()], np.float64)

    def __getitem__(self, name: str) -> float:
        return float(self._values[self._places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@lru_cache(maxsize=64)
def _places_of(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: place for place, name in enumerate(names)}


@dataclass(frozen=True)
class ImageResult:
    """One image: its metrics, what adds up over images, and the arrays for pictures.

    `data` is None where nobody wants the arrays; `histograms` (of both routes), `expected` (of a
    law that is known) and `sums` (`breakdown`) are None once they are added up. `scatter` is
    (2, k): √max(v, 0) and the samples' std of k pixels drawn at random, none without samples.
    `is_float`, `num_stored`: of the data; `group`: the name of its class.
    """

    name: str
    metrics: Mapping[str, float]
    data: ImageData | None
    is_float: bool
    means: Mapping[str, float]
    histograms: dict[str, Histograms] | None
    scatter: Array
    expected: dict[str, Expected] | None = None
    sums: Sums | None = None
    num_stored: int = 0
    group: str = ""


def image_result(name: str, data: ImageData, *, num_scatter: int, seed: int) -> ImageResult:
    """Compute all metrics of one image; `seed` chooses the pixels whose stds are kept."""
    noise = None if data.samples is None else noise_of(data.samples)
    means, histograms = image_means(data, noise)
    found = image_metrics(data, noise)
    found |= {name: float(value) for name, value in pooled_metrics(means).items()}
    sections = list(dict.fromkeys(name.partition(".")[0] for name in found))
    in_order = sorted(found, key=lambda name: sections.index(name.partition(".")[0]))
    metrics = {name: found[name] for name in in_order}
    scatter = np.zeros((2, 0))
    if noise is not None:
        rng = np.random.default_rng(stable_seed(seed, "scatter", name))
        variance, std = data.judged(data.variance, noise.std)
        places = rng.integers(0, variance.size, num_scatter)
        pairs = [np.sqrt(np.maximum(variance, 0)), std]
        scatter = np.stack([values[places] for values in pairs])  # (2, k)
    expected, truth = None, data.judged_truth
    if truth is not None and data.samples is not None:
        expected = expected_of_image(name, truth, data.samples.count, seed)
    sums = image_sums(name, data, seed)
    of_data = data.is_float, means, histograms, scatter, expected, sums, data.num_stored
    return ImageResult(name, metrics, data, *of_data)


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def _errors(means: Mapping[str, Array]) -> dict[str, Array]:
    n_floor, k2 = means["mean_floor"], means["k2"]
    raw, floor = means["square"], means["scatter"]
    fourth = means["k2_k2"] - floor  # E k₂² = σ⁴ + Var(k₂)
    relative_mse = (means["mean_square"] - n_floor) / k2
    return {
        "mean.relative_raw_mse": means["mean_square"] / k2,
        "mean.relative_floor": n_floor / k2,
        "mean.relative_mse": relative_mse,
        "mean.relative_rms_error": signed_root(relative_mse),
        "var.squared_error": raw,
        "var.floor_squared_error": floor,
        "var.corrected_squared_error": raw - floor,
        "var.relative_raw_squared_error": raw / fourth,
        "var.relative_floor_squared_error": floor / fourth,
        "var.relative_squared_error": (raw - floor) / fourth,
        "var.relative_rms_error": signed_root((raw - floor) / fourth),
        "var.relative_bias": means["v"] / k2 - 1,
    }


def _ceiling(means: Mapping[str, Array], of: str = "") -> dict[str, Array]:
    """Of the variances, or of the stds."""
    found = correlation(*(means[name] for name in _names_of_cross(f"{of}v", f"{of}k2")))
    reference = f"{of}k2"
    spread = means[f"{reference}_{reference}"] - means[reference] ** 2
    reliability = 1 - means[f"{of}scatter"] / np.where(spread > 0, spread, np.nan)
    return {
        f"ceiling.{of}correlation": found,
        f"ceiling.{of}reliability": reliability,
        f"ceiling.{of}disattenuated": found
        / np.sqrt(np.where(reliability > 0, reliability, np.nan)),
    }


def _cross(first: str, x: Array, second: str, y: Array) -> dict[str, Array]:
    return dict(zip(_names_of_cross(first, second), (x, y, x * x, y * y, x * y), strict=True))


def _names_of_cross(first: str, second: str) -> tuple[str, ...]:
    pairs = ((first, first), (second, second), (first, second))
    return (first, second, *("_".join(pair) for pair in pairs))


def _consistency(data: ImageData) -> Metrics:
    means, found = {"nets": data.mean}, {"nets.area": np.nan}
    if data.samples is not None:
        means["samples"] = data.samples.mean
        found |= {"samples.area": np.nan, "block_variance": np.nan}
    if data.low_res is not None and data.has_consistency:
        small, degraded, x = Size(*data.low_res.shape[:2]), data.degraded, data.low_res
        if degraded is not None:
            x = degraded(data.high_res)
        for route, mean in means.items():
            residual = (degraded(mean) if degraded else block_means(mean, small)) - x
            found[f"{route}.area"] = float((residual**2).mean())
    if data.block_variance is not None:
        found["block_variance"] = float(data.block_variance.mean())
    return found
