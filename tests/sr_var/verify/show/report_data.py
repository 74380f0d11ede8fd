"""A verification as the report gets it, of made-up images: pages without a network or a sampler.

Not for metrics that are right: they only have the shape and size of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_var.verify.numbers.equivalent import PAIRED
from sr_var.verify.numbers.metrics import averages, image_metrics
from sr_var.verify.numbers.summary import nested
from sr_var.verify.read.images import ImageData
from sr_var.verify.show.gallery import Gallery
from tests.tiny import photo
from utils.metrics import Moments

HOSTILE = "<img src=x onerror=alert(1)>/</script><script>alert(2)</script>\"'&amp;"
# no folder may be called so, but a page must bear it
UNPRINTABLE = "\u2028\udcff"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class NamedMetrics:
    """What the page asks of an image's result."""

    name: str
    metrics: dict[str, float]


def image_data(
    high_res_uint8: NDArray[np.uint8], num_samples: int, seed: int, factor: int = 4
) -> tuple[ImageData, NDArray[np.uint8]]:
    """A photograph blurred by blocks, with samples that scatter where it has detail."""
    rng = np.random.default_rng(seed)
    high_res = high_res_uint8.astype(np.float64)
    side = high_res.shape[0]
    blocks = high_res.reshape(side // factor, factor, side // factor, factor, 3).mean(axis=(1, 3))
    low = Image.fromarray(np.rint(blocks).astype(np.uint8))
    bilinear = np.asarray(low.resize((side, side), Image.Resampling.BILINEAR), np.float64)
    mean = np.asarray(low.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    detail = np.abs(high_res - mean)
    std = 1.0 + 0.8 * _blur(detail)
    shape = (num_samples, *high_res.shape)
    noise = rng.normal(size=(*shape[:3], 1)) * 0.8 + rng.normal(size=shape) * 0.6
    samples = np.clip(np.rint(mean + std * noise), 0, 255).astype(np.uint8)
    net_mean = mean + 0.1 * std * rng.normal(size=high_res.shape)
    net_variance = (std * np.exp(0.1 * _blur(rng.normal(size=high_res.shape)))) ** 2
    moments = Moments.from_samples(samples)
    return ImageData(net_mean, net_variance, moments, high_res, bilinear), samples


def _blur(values: Array) -> Array:
    for axis in (0, 1):
        values = sum(np.roll(values, shift, axis) for shift in range(-2, 3)) / 5
    return values


def write_samples(folder: Path, name: str, samples: NDArray[np.uint8]) -> None:
    """The samples as the sampler leaves them."""
    target = folder / name / "high_res_samples"
    target.mkdir(parents=True)
    for index, sample in enumerate(samples):
        Image.fromarray(sample).save(target / f"sample_{index}.png", compress_level=1)


def made_up(
    folder: Path, names: list[str], *, side: int, num_samples: int
) -> tuple[dict[str, Any], list[NamedMetrics], Gallery]:
    """Summary, rows and gallery of photographs that nobody took; all but the last have samples."""
    gallery = Gallery(str(folder), num_samples, print)
    rows = []
    for seed, name in enumerate(names):
        data, samples = image_data(photo(seed, (side, side)), num_samples, seed)
        if name != names[-1]:
            write_samples(folder, name, samples)
        gallery.add(name, data)
        if name == HOSTILE:
            name += UNPRINTABLE
            gallery.images[-1]["name"] = name
        rows.append(NamedMetrics(name, image_metrics(data)))
    return summary_of(rows, num_samples), rows, gallery


def summary_of(rows: list[NamedMetrics], num_samples: int) -> dict[str, Any]:
    """A summary with what every verification has: neither an exact law nor an error budget."""
    found = nested(averages([row.metrics for row in rows]))
    further = {k: v for k, v in further_sections().items() if k not in ("truth", "budget")}
    head = {"num_images": len(rows), "num_samples": num_samples, "left_out": {}}
    return {**head, **found, **further}


def _curves(bias: float) -> dict[str, Any]:
    std, nominal = np.geomspace(0.6, 30, 20), np.linspace(0.05, 0.95, 19)
    fraction = np.linspace(0, 0.95, 20)
    return {
        "reliability": {
            "predicted_std": std.tolist(),
            "rmse": (bias * std**0.96).tolist(),
            "count": [500] * 20,
        },
        "coverage": {"nominal": nominal.tolist(), "observed": (nominal**bias).tolist()},
        "sparsification": {
            "fraction": fraction.tolist(),
            "rmse": (12 * bias * (1 - fraction) ** 0.7).tolist(),
            "oracle_rmse": (12 * (1 - fraction) ** 1.1).tolist(),
        },
    }


def _calibration(bias: float) -> dict[str, float | None]:
    return {
        "z2": 1.07 * bias,
        "nll": 3.21 * bias,
        "coverage_50": 0.52,
        "coverage_68": 0.69,
        "coverage_90": 0.893,
        "coverage_95": 0.941,
        "ence": 0.061 * bias,
        "sharpness_mean_std": 8.4,
        "interval_score_90": 41.2 * bias,
        "ause": None,
    }


def _groups() -> dict[str, Any]:
    shape = {
        "share": [0.05] * 20,
        "expected": [0.05] * 20,
        "distance": 0.0,
        "by_std": [{"std": 2.0 + i, "share": [0.05] * 20} for i in range(5)],
    }
    scores = {"num_pixels": 99, "std": 2.0, "rmse": 2.1, "z2": 1.1, "nll": 2.0, "crps": 1.0}
    row = {**scores, "coverage_90": 0.9}
    of_class = {"class": HOSTILE, "num_images": 2, "z2": 1.1, "nll": 2.0, "crps": 1.0}
    routes = ("nets", "samples")
    return {
        "pit": dict.fromkeys(routes, shape),
        "ranks": {**shape, "num_members": 19, "fair_crps": 4.5},
        "groups": {
            "std": {route: [row] * 5 for route in routes},
            "range": {route: [{"label": "inside", **row}] for route in routes},
            "frequency": {"nets_error": [3.0] * 8, "samples_spread": [2.0] * 8},
            "class": [{**of_class, "coverage_90": 0.9}],
        },
        "worst": {"calibration.nets.z2": [{"name": HOSTILE, "value": 1.7}]},
    }


_VERDICT = (
    "The nets' mean agrees with the samples' within 10 % of the variance (2.1 %, 95 % interval 1.4 "
    "to 3.0 %). For the variance 9 % were found, and 100 samples cannot tell whether that is below "
    "10 % (4 to 14 %)."
)


def further_sections() -> dict[str, Any]:
    """Every section that is none of averages over images, with values of a plausible size."""
    rng = np.random.default_rng(0)
    std = rng.gamma(2.0, 4.0, 2000)
    noisy = std * np.exp(rng.normal(0, 0.12, 2000))
    return {
        "ceiling": {"correlation": 0.91, "reliability": 0.93, "disattenuated": 0.944},
        "calibration": {"nets": _calibration(1.0), "samples": _calibration(1.04)},
        "reference": {
            "nets": _calibration(0.95),
            "samples": _calibration(1.01),
            "curves": {"nets": _curves(1.0), "samples": _curves(1.0)},
        },
        **_groups(),
        "paired": {f"{of}{key}": -0.02 for of in ("", "fair_") for key in PAIRED},
        "consistency": {
            "nets": {"mean_rms": 0.62},
            "samples": {"mean_rms": 0.98, "block_mean_std": 0.71},
        },
        "cost": {
            "nets": {"evaluations_per_image": 2},
            "samples": {"evaluations_per_image": 25000},
        },
        "intervals": {"mean.mse": [1.2, 2.9], "calibration.nets.z2": [0.98, 1.16]},
        "verdict": {
            "margin": 0.1,
            "level": 0.967,
            "num_units_needed": 50,
            "mean": {"verdict": "equivalent", "value": 0.021, "interval": [0.014, 0.03]},
            "variance": {"verdict": "undecided", "value": 0.09, "interval": [0.04, 0.14]},
            "bias": {"verdict": "equivalent", "value": 0.004, "interval": [-0.01, 0.02]},
            "text": _VERDICT,
        },
        "truth": {
            "nets": {"mean_mse": 0.41, "std_error": 0.3},
            "samples": {"mean_mse": 1.2, "std_error": 0.62},
            "expected": {"mean_mse": 0, "std_error": 0},
            "text": "Against the exact law the nets are closer than the samples, in mean and std.",
        },
        "curves": {"nets": _curves(1.06), "samples": _curves(0.98)},
        "scatter": {"std_samples": std.tolist(), "std_nets": noisy.tolist()},
        "budget": [
            {"row": "number of samples", "relative_mse": 0.01, "relative_var_error": 0.14},
            {"row": "training of the nets", "relative_mse": 0.02, "relative_var_error": 0.06},
            {"row": "8-bit rounding", "relative_mse": 0.0008, "relative_var_error": None},
        ],
    }
