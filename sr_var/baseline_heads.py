"""What the outputs of a baseline network mean: pure functions on tensors and arrays.

Not for losses (``losses``), nor for files (``sr_var.baseline``). Images are in [-1, 1] unless a
name says otherwise; arrays are HWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_var.losses import VARIANCE_FLOOR

Array = npt.NDArray[np.float64]


def gaussian_outputs(raw: Tensor, offset: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:
    """(mean, variance) of a network with twice the channels, (N, C, H, W) each.

    Args:
        raw: (N, 2C, H, W), mean and what becomes the variance.
        offset: (N, C, H, W), added to the mean; None adds nothing.
        kind: ``softplus`` or ``exp``; ``VARIANCE_FLOOR`` is added.
    """
    mean, free = raw.float().chunk(2, dim=1)
    variance = F.softplus(free) if kind == "softplus" else free.exp()
    return (mean if offset is None else mean + offset), variance + VARIANCE_FLOOR


def quantile_outputs(raw: Tensor, offset: Tensor | None, num_levels: int) -> Tensor:
    """(N, Q, C, H, W) of a network with Q times the channels.

    Args:
        raw: (N, QC, H, W), one image a level.
        offset: (N, C, H, W), added to every level; None adds nothing.
        num_levels: Q.
    """
    num, _, height, width = raw.shape
    quantiles = raw.float().reshape(num, num_levels, -1, height, width)  # (N, Q, C, H, W)
    return quantiles if offset is None else quantiles + offset[:, None]


def rearranged(quantiles: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles in ascending order, and the share of neighbours that were not.

    Levels are learned one by one and may cross. Sorting never takes them further from the truth
    (Chernozhukov, Fernández-Val & Galichon 2010).

    Args:
        quantiles: (N, Q, C, H, W), levels ascending.
    """
    crossed = (quantiles.diff(dim=1) < 0).double()
    share = crossed.mean() if crossed.numel() else crossed.sum()
    return quantiles.sort(dim=1).values, share


def normal_moments(quantiles: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(mean, variance) of the normal law closest to the quantiles, (N, C, H, W) each.

    Least squares of q_τ = m + s z_τ over the levels, z_τ the standard normal quantile: exact for a
    normal law, whatever the levels. For another law it is a summary, not its moments; of a law with
    two peaks the mean is right by symmetry at most.

    Args:
        quantiles: (N, Q, C, H, W).
        levels: Q ≥ 2 numbers in (0, 1).
    """
    z = torch.tensor([NormalDist().inv_cdf(level) for level in levels]).to(quantiles)
    z_mean = z.mean()
    weights = (z - z_mean) / (z - z_mean).square().sum()
    std = torch.einsum("q,nqchw->nchw", weights, quantiles)
    return quantiles.mean(dim=1) - z_mean * std, std.square()


def quantile_errors(
    quantile_255: npt.ArrayLike, label_255: npt.ArrayLike, exact_255: npt.ArrayLike | None
) -> dict[str, float]:
    """How good one quantile of one image is.

    Args:
        quantile_255: grey levels.
        label_255: the real high-res image, grey levels, same shape.
        exact_255: the true quantile, same shape, where it is known.

    Returns:
        ``coverage``: share of values below the quantile, those equal to it by half; its
        expectation is the level if the quantile is exact. ``rms_error``: root of the mean squared
        distance from the true quantile, grey levels; only where that is known.
    """
    quantile, label = (np.asarray(a, np.float64) for a in (quantile_255, label_255))
    coverage = float(np.mean(label < quantile) + 0.5 * np.mean(label == quantile))
    if exact_255 is None:
        return {"coverage": coverage}
    distance = quantile - np.asarray(exact_255, np.float64)
    return {"coverage": coverage, "rms_error": float(np.sqrt(np.mean(distance**2)))}


def summarise_errors(
    by_image: Sequence[dict[str, dict[str, float]]],
) -> dict[str, dict[str, float]]:
    """Averages over images of equal size, by level; squared errors are averaged, not their roots.

    Args:
        by_image: level → figures of ``quantile_errors``, at least one image.
    """
    summary: dict[str, dict[str, float]] = {}
    for level in by_image[0]:
        rows = [image[level] for image in by_image]
        summary[level] = {"coverage": float(np.mean([row["coverage"] for row in rows]))}
        if all("rms_error" in row for row in rows):
            squares = [row["rms_error"] ** 2 for row in rows]
            summary[level]["rms_error"] = float(np.sqrt(np.mean(squares)))
    return summary
