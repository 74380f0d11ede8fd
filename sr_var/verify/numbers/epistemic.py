"""The variance between the nets of an ensemble, beside the one that they predict.

e is the unbiased variance of K mean nets at a pixel, in grey levels² (`sr_var.ensemble`), v the
predicted, *aleatoric* variance, m the nets' average. Over K nets of one training the expectation
of e is the variance part of one net's squared error, and e/K that of m's (docs/theory.md, eq. 64 to
63). An error that all nets share is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from sr_var.results.moments import Array, Truth
from utils.metrics import VARIANCE_FLOOR

# K, the same for all images: no metric
NUM_NETS = "epistemic.num_nets"
_Z95 = NormalDist().inv_cdf(0.975)


def epistemic_means(
    between: Array, nets: tuple[Array, ...], high_res: Array, num_nets: int, truth: Truth | None
) -> dict[str, float]:
    """What `epistemic_metrics` needs of one image: means over its pixels.

    `between` is e, `nets` are m and v (not clipped), all HWC; `num_nets` is K, 0 where nobody
    knows.
    """
    mean, raw_variance = nets
    variance, std = np.maximum(raw_variance, 0), np.sqrt(between)
    total = np.maximum(variance + between, VARIANCE_FLOOR)
    z2 = (high_res - mean) ** 2 / total
    arrays = {
        "variance": between,
        "std": std,
        "aleatoric_std": np.sqrt(variance),
        "z2": z2,
        "coverage_95": z2 <= _Z95**2,
    }
    if truth is not None:
        error = np.abs(mean - truth.mean)
        arrays |= {
            "square": error**2,
            "one_net_square": error**2 + between * (1 - 1 / num_nets if num_nets else np.nan),
            "error": error,
            "std_error": std * error,
        }
    means = {f"epistemic.{name}": float(array.mean()) for name, array in arrays.items()}
    return {**means, NUM_NETS: float(num_nets)}


def epistemic_metrics(means: Mapping[str, Array]) -> dict[str, Array]:
    """Section `epistemic` from means over pixels (and images), by dotted name.

    `mean_std` ⟨√e⟩, `mean_std_aleatoric` ⟨√v⟩, `std_ratio` the one over the other, `variance` ⟨e⟩;
    `z2_total`, `coverage_95_total` of the normal law with the variance v + e. With an exact law:
    `squared_error` ⟨(m − μ)²⟩ of the average, `one_net_squared_error` that of one net, averaged
    over the nets, `between_share` ⟨e⟩ over the latter: the share of a net's squared error that
    other seeds or images would change; `correlation` of √e and |m − μ|.
    """
    of = "epistemic."
    found = {
        of + "mean_std": means[of + "std"],
        of + "mean_std_aleatoric": means[of + "aleatoric_std"],
        of + "std_ratio": means[of + "std"] / means[of + "aleatoric_std"],
        of + "variance": means[of + "variance"],
        of + "z2_total": means[of + "z2"],
        of + "coverage_95_total": means[of + "coverage_95"],
    }
    if of + "square" not in means:
        return found
    std, error = means[of + "std"], means[of + "error"]
    scale = (means[of + "variance"] - std**2) * (means[of + "square"] - error**2)
    covariance = means[of + "std_error"] - std * error
    return {
        **found,
        of + "squared_error": means[of + "square"],
        of + "one_net_squared_error": means[of + "one_net_square"],
        of + "between_share": means[of + "variance"] / means[of + "one_net_square"],
        of + "correlation": covariance / np.where(scale > 0, np.sqrt(scale), np.nan),
    }
