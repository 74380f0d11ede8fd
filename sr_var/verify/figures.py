"""The figures that compare the nets with the samples: definitions, and the numbers of one image.

All in grey levels and float64, on HWC arrays; averages over images are taken by ``averages``.
Reading files and drawing pictures is the business of ``images`` and ``run``; figures
that are functions of means over all images are in ``pooled``.

Definitions (m, v: mean and variance of the nets; x̄, k2: mean and unbiased variance of the n
samples; averages over pixels and channels; docs/theory.md, eq. 6 to 15):

    mse        mean (m − x̄)²
    psnr       10 log10(255² / mse)
    nmse       Σ (m − x̄)² / Σ x̄²
    var_error  mean |max(v, 0) − k2|
    std_error  mean |√max(v, 0) − √k2|
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sr_var.verify.floors import variance_floors
from sr_var.verify.truth import Truth
from utils.metrics import Moments, mean_abs_error, mse, nmse, psnr

Array = npt.NDArray[np.float64]
Figures = dict[str, float]


@dataclass(frozen=True)
class ImageData:
    """Everything about one image, HWC float64 grey levels.

    ``mean`` and ``variance`` are the nets', ``samples`` the reference; ``bilinear`` is the low-res
    image upsampled, the baseline that a mean net must beat. What need not be known is None: X (the
    block means of ``high_res``, (h, w, 3)); the variances of the samples of even and of odd index;
    the samples' variance of their block means, (h, w, 3); the exact law.
    """

    mean: Array
    variance: Array
    samples: Moments
    high_res: Array
    bilinear: Array
    low_res: Array | None = None
    half_variances: tuple[Array, Array] | None = None
    block_variance: Array | None = None
    truth: Truth | None = None


def compare_mean(data: ImageData) -> Figures:
    """The mean net against the samples, with the part that is the samples' own noise.

    ``floor_mse`` = mean k2/n is what the true mean would show against n samples.
    """
    reference = data.samples.mean
    floor = float(np.mean(data.samples.variance)) / data.samples.count
    error = mse(reference, data.mean)
    return {
        "mse": error,
        "psnr": psnr(reference, data.mean),
        "nmse": nmse(reference, data.mean),
        "floor_mse": floor,
        "corrected_mse": error - floor,
        "relative_mse": (error - floor) / max(float(np.mean(data.samples.variance)), 1e-12),
    }


def compare_variance(data: ImageData) -> Figures:
    """The variance net against the samples' unbiased variance.

    The floors are what the true variance would show against n samples
    (:func:`sr_var.verify.floors.variance_floors`); nan below 4 samples.
    """
    k2 = data.samples.variance
    variance = np.maximum(data.variance, 0)
    floor, std_floor = variance_floors(data.samples)
    std = np.sqrt(k2)
    return {
        "var_error": mean_abs_error(k2, variance),
        "std_error": mean_abs_error(std, np.sqrt(variance)),
        "floor_var_error": float(np.mean(floor)),
        "floor_std_error": float(np.mean(std_floor)),
        "mean_std_net": float(np.mean(np.sqrt(variance))),
        "mean_std_samples": float(np.mean(std)),
        "correlation": _correlation(np.sqrt(variance), std),
        "num_negative": float(np.count_nonzero(data.variance < 0)),
    }


def compare_with_truth(data: ImageData) -> Figures:
    """Nets, samples and bilinear upsampling against the real high-res image."""
    return {
        "psnr_net": psnr(data.high_res, data.mean),
        "psnr_samples": psnr(data.high_res, data.samples.mean),
        "psnr_bilinear": psnr(data.high_res, data.bilinear),
        "mean_abs_error_net": mean_abs_error(data.high_res, data.mean),
    }


def edge_contrast(data: ImageData) -> Figures:
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


def image_figures(data: ImageData) -> dict[str, Figures]:
    """All figures of one image, by section."""
    return {
        "mean": compare_mean(data),
        "var": compare_variance(data),
        "high_res": compare_with_truth(data),
        "edges": edge_contrast(data),
    }


def averages(rows: Sequence[Mapping[str, Figures]]) -> dict[str, Figures]:
    """Mean over images of every figure; ``num_negative`` is summed."""
    result: dict[str, Figures] = {}
    for section, figures in rows[0].items():
        result[section] = {}
        for key in figures:
            values = np.array([row[section][key] for row in rows], np.float64)
            total = values.sum() if key.startswith("num_") else values.mean()
            result[section][key] = float(total)
    return result


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0
