"""Figures that are functions of means over all pixels: floors, ceiling, calibration, consistency.

One image is reduced to its means over pixels (``image_means``). Figures are functions of such means
(``pooled_figures``), whether of one image, of all of them, or of a bootstrap replicate: a ratio is
then always a ratio of sums, never a mean of ratios. docs/theory.md, eq. 16 to 30.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sr_var.results.moments import block_means
from sr_var.verify.calibration import Histograms, calibrate
from sr_var.verify.figures import Array, ImageData
from sr_var.verify.floors import COUNT_FOR_FLOOR
from sr_var.verify.truth import truth_figures, truth_means

ROUTES = ("nets", "samples")
_PLAIN = ("z2", "nll", "coverage_50", "coverage_68", "coverage_90", "coverage_95")


def image_means(data: ImageData) -> tuple[dict[str, float], dict[str, Histograms]]:
    """Means over the pixels and channels of one image, and the histograms of both routes.

    What is not known (fewer than four samples, no halves, no block means) is nan; names that begin
    with ``truth`` are there only where the exact law is.
    """
    samples, v, k2 = data.samples, np.maximum(data.variance, 0), data.samples.variance
    scatter = np.full_like(k2, np.nan)
    if samples.count >= COUNT_FOR_FLOOR:
        scatter = samples.variance_of_variance
    arrays = {
        "mean_square": (data.mean - samples.mean) ** 2,
        "square": (v - k2) ** 2,
        "scatter": scatter,
        **_cross("v", v, "k2", k2),
    }
    if data.half_variances is not None:
        arrays |= _cross("even", data.half_variances[0], "odd", data.half_variances[1])
    means = {name: float(array.mean()) for name, array in arrays.items()}
    # the predictive law of one more draw: its own spread, and that of the mean of n
    predictive = {
        "nets": (data.mean, data.variance),
        "samples": (samples.mean, k2 * (1 + 1 / samples.count)),
    }
    histograms = {}
    for route, (mean, variance) in predictive.items():
        found, histograms[route] = calibrate(data.high_res, mean, variance)
        means |= {f"{route}.{name}": value for name, value in found.items()}
    means |= _consistency(data)
    if data.truth is not None:
        nets, reference = (data.mean, data.variance), (samples.mean, k2)
        means |= truth_means(data.truth, nets, reference, samples.count)
    return means, histograms


def pooled_figures(means: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name → figure, from means over pixels; values may be arrays, one entry a replicate.

    mean.relative_…      squared error, its floor and the difference, over mean k₂
    var.squared_error    mean (max(v, 0) − k₂)², its floor mean V̂, the difference, and each over
                         mean (k₂² − V̂), the unbiased mean of σ⁴
    var.relative_rms_error   root of the last, with its sign
    var.relative_bias    mean max(v, 0) / mean k₂ − 1
    ceiling.…            corr(v, k₂); ρ = 2r/(1 + r) of the halves' correlation r; corr/√ρ
    calibration.<route>.…    see ``calibration.calibrate``
    consistency.<route>.mean_rms         √ mean (area(m) − X)², grey levels
    consistency.samples.block_mean_std   √ mean over blocks of the variance of the block mean
    """
    full = {name: np.asarray(value, np.float64) for name, value in means.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = _errors(full) | _ceiling(full)
        for route in ROUTES:
            prefix = f"calibration.{route}."
            figures |= {prefix + name: full[f"{route}.{name}"] for name in _PLAIN}
            figures[prefix + "sharpness_mean_std"] = full[f"{route}.sharpness_mean_std"]
            figures[prefix + "sharpness_rms_std"] = np.sqrt(full[f"{route}.mean_variance"])
            figures[prefix + "interval_score_90"] = full[f"{route}.interval_score_90"]
            figures[f"consistency.{route}.mean_rms"] = np.sqrt(full[f"{route}.area"])
        figures["consistency.samples.block_mean_std"] = np.sqrt(full["block_variance"])
        if "truth.v" in full:
            figures |= truth_figures(full)
    return figures


def correlation(x: Any, y: Any, xx: Any, yy: Any, xy: Any) -> Any:
    """Pearson correlation from the means of x, y, x², y² and xy; nan without spread."""
    scale = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    return (xy - x * y) / np.where(scale > 0, np.sqrt(scale), np.nan)


def signed_root(values: Any) -> Any:
    """sign(x) √|x|: a floor-corrected square may be negative, and must stay so in an interval."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _errors(means: Mapping[str, Array]) -> dict[str, Any]:
    n_floor, k2 = means["mean_floor"], means["k2"]
    raw, floor = means["square"], means["scatter"]
    fourth = means["k2_k2"] - floor  # E k₂² = σ⁴ + Var(k₂)
    return {
        "mean.relative_raw_mse": means["mean_square"] / k2,
        "mean.relative_floor": n_floor / k2,
        "mean.relative_mse": (means["mean_square"] - n_floor) / k2,
        "var.squared_error": raw,
        "var.floor_squared_error": floor,
        "var.corrected_squared_error": raw - floor,
        "var.relative_raw_squared_error": raw / fourth,
        "var.relative_floor_squared_error": floor / fourth,
        "var.relative_squared_error": (raw - floor) / fourth,
        "var.relative_rms_error": signed_root((raw - floor) / fourth),
        "var.relative_bias": means["v"] / k2 - 1,
    }


def _ceiling(means: Mapping[str, Array]) -> dict[str, Any]:
    found = correlation(*(means[name] for name in ("v", "k2", "v_v", "k2_k2", "v_k2")))
    half_names = ("even", "odd", "even_even", "odd_odd", "even_odd")
    nan = np.full_like(found, np.nan)
    half = correlation(*(means.get(name, nan) for name in half_names))
    reliability = 2 * half / (1 + half)
    return {
        "ceiling.correlation": found,
        "ceiling.reliability": reliability,
        "ceiling.disattenuated": found / np.sqrt(np.where(reliability > 0, reliability, np.nan)),
    }


def _cross(first: str, x: Array, second: str, y: Array) -> dict[str, Array]:
    return {
        first: x,
        second: y,
        f"{first}_{first}": x * x,
        f"{second}_{second}": y * y,
        f"{first}_{second}": x * y,
    }


def _consistency(data: ImageData) -> dict[str, float]:
    found = {"nets.area": np.nan, "samples.area": np.nan, "block_variance": np.nan}
    if data.low_res is not None:
        side = data.low_res.shape[0]
        for route, mean in (("nets", data.mean), ("samples", data.samples.mean)):
            residual = block_means(mean, side) - data.low_res
            found[f"{route}.area"] = float((residual**2).mean())
    if data.block_variance is not None:
        found["block_variance"] = float(data.block_variance.mean())
    found["mean_floor"] = float(data.samples.variance.mean()) / data.samples.count
    return found
