"""The exact law of the oracle's images: reading it, and how far both routes are from it.

Where the conditional law is known, the two routes need not be judged against each other. Not for
making such images; ``exact_moments.npz`` comes with them. docs/theory.md, eq. 31 to 33.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sr_var.results.moments import MAX_ARRAY_BYTES, as_floats
from sr_var.verify.floors import deviations_of_gamma
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz

Array = npt.NDArray[np.float64]

TRUTH_FILE = "exact_moments.npz"
_KEYS = ("mean", "variance", "third_central_moment", "fourth_central_moment")
# a pixel whose exact variance is zero has no relative error
_SMALLEST_VARIANCE = 1e-9


@dataclass(frozen=True)
class Truth:
    """Exact mean μ, variance v and fourth central moment μ₄ of every pixel, HWC grey levels."""

    mean: Array
    variance: Array
    fourth: Array


def load_truth(folder: str, size: int) -> Truth | None:
    """Reads ``exact_moments.npz``; None if there is none.

    Raises:
        DataError: if the file is damaged, of another size, not finite, or no law has such moments.
    """
    path = os.path.join(folder, TRUTH_FILE)
    if not os.path.exists(path):
        return None
    remedy = "write the data set again"
    file = read_npz(path, path, remedy=remedy, max_bytes=MAX_ARRAY_BYTES)
    try:
        arrays = {key: as_floats(file[key]) for key in _KEYS}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from None
    for key, array in arrays.items():
        if array.shape != (size, size, 3):
            raise DataError(
                f"{path}: {key} has shape {array.shape}, not that of --large_size {size}; "
                "give the size that the data set was written with"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {key} is not finite everywhere; write the data set again")
    if (arrays["variance"] < 0).any() or (arrays["fourth_central_moment"] < 0).any():
        raise DataError(f"{path} holds negative even moments; write the data set again")
    return Truth(arrays["mean"], arrays["variance"], arrays["fourth_central_moment"])


def truth_means(
    truth: Truth, nets: tuple[Array, Array], samples: tuple[Array, Array], num_samples: int
) -> dict[str, float]:
    """What :func:`truth_figures` needs of one image: means over its pixels.

    Args:
        truth: the exact law.
        nets: mean and variance of the nets, not clipped.
        samples: x̄ and k₂.
        num_samples: n.
    """
    v, n = truth.variance, num_samples
    has_spread = v > _SMALLEST_VARIANCE
    safe = np.where(has_spread, v, 1.0)
    # rounding must not make it negative: it is at least v² 2/(n(n − 1))
    scatter = np.maximum(truth.fourth / n - v**2 * ((n - 3) / (n * (n - 1))), 0)
    shape = 1 / np.clip(scatter / safe**2, 2 / (n * (n - 1)), None)
    of_variance, of_std, _ = deviations_of_gamma(shape)
    means = {
        "truth.v": v.mean(),
        "truth.v_square": (v**2).mean(),
        "truth.expected.square": v.mean() / n,
        "truth.expected.scatter": scatter.mean(),
        "truth.expected.relative": (of_variance * has_spread).sum() / max(has_spread.sum(), 1),
        "truth.expected.var_error": (v * of_variance).mean(),
        "truth.expected.std_error": (np.sqrt(v) * of_std).mean(),
    }
    for route, (mean, raw_variance) in (("nets", nets), ("samples", samples)):
        variance = np.maximum(raw_variance, 0)
        error = np.abs(variance - v)
        means |= {
            f"truth.{route}.square": ((mean - truth.mean) ** 2).mean(),
            f"truth.{route}.v": variance.mean(),
            f"truth.{route}.scatter": (error**2).mean(),
            f"truth.{route}.relative": (error / safe * has_spread).sum() / max(has_spread.sum(), 1),
            f"truth.{route}.var_error": error.mean(),
            f"truth.{route}.std_error": np.abs(np.sqrt(variance) - np.sqrt(v)).mean(),
        }
    return {name: float(value) for name, value in means.items()}


def truth_figures(means: Mapping[str, Any]) -> dict[str, Any]:
    """Section ``truth`` from means over pixels (and images), by dotted name.

    For both routes, and as expected of n exact samples: ``relative_mse`` mean (m − μ)² / mean v
    (expected 1/n); ``relative_var_error`` mean |max(v̂, 0) − v| / v; ``relative_rms_error``
    √(mean (v̂ − v)² / mean v²); ``var_bias`` mean v̂ / mean v − 1; ``var_error``, ``std_error`` mean
    absolute errors in grey levels. Var(k₂) = μ₄/n − v² (n − 3)/(n (n − 1)).
    """
    figures: dict[str, Any] = {}
    for route in ("nets", "samples", "expected"):
        part = {key: means[f"truth.{route}.{key}"] for key in ("square", "scatter", "relative")}
        mean_v = means.get(f"truth.{route}.v", means["truth.v"])
        figures |= {
            f"truth.{route}.relative_mse": part["square"] / means["truth.v"],
            f"truth.{route}.relative_var_error": part["relative"],
            f"truth.{route}.relative_rms_error": np.sqrt(part["scatter"] / means["truth.v_square"]),
            f"truth.{route}.var_bias": mean_v / means["truth.v"] - 1,
            f"truth.{route}.var_error": means[f"truth.{route}.var_error"],
            f"truth.{route}.std_error": means[f"truth.{route}.std_error"],
        }
    return figures


def truth_text(truth: Mapping[str, Mapping[str, float]], num_samples: int) -> str:
    """One sentence: do two forward passes beat n exact samples?"""
    said = []
    for key, unit in (
        ("relative_mse", "squared error / variance"),
        ("relative_rms_error", "error"),
    ):
        net, exact = truth["nets"][key], truth["expected"][key]
        word = "beat" if net < exact else "do not beat"
        said.append((word, f"{unit} {net:.3g} against {exact:.3g}"))
    (mean_word, mean_errors), (var_word, var_errors) = said
    return (
        f"Two forward passes {mean_word} {num_samples} exact samples for the mean ({mean_errors}) "
        f"and {var_word} them for the variance (relative rms {var_errors})."
    )
