"""The losses beside the squared error, each with its conditional risk minimiser: pure functions.

All return the mean over items, channels and pixels (docs/theory.md, section 1 has the table).
Images are NCHW in [-1, 1], variances in that unit squared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sr_var.flags.nets import QUANTILE, BaselineModelFlags
from sr_var.flags.scripts import VarModelFlags
from utils.metrics import HALF_RANGE_255

# what rounding to 8 bits adds: 1/12 grey level²; below it the images say nothing
VARIANCE_FLOOR = 1.0 / (12.0 * HALF_RANGE_255**2)


def itakura_saito(variance: Tensor, squared_residual: Tensor) -> Tensor:
    """Mean of (r² + ε)/(v + ε) + log(v + ε); minimiser v = E[r² | x].

    The Itakura–Saito divergence without its constant, a Bregman divergence, hence the minimiser
    (Banerjee et al. 2005). It compares by ratio: dark spots of the variance count as much as bright
    ones. ε = `VARIANCE_FLOOR` on both sides bounds value and gradient as v tends to 0 and leaves
    the minimiser where it is. v ≥ 0 and r² have one shape.
    """
    floored = variance + VARIANCE_FLOOR
    return ((squared_residual + VARIANCE_FLOOR) / floored + floored.log()).mean()


def beta_nll(mean: Tensor, variance: Tensor, label: Tensor, beta: float) -> Tensor:
    """Mean of sg(v^β) · (½ (y − m)²/v + ½ log v), sg: taken as a constant by the gradient.

    Seitzer et al. 2022 (arXiv 2203.09168, eq. 5). β = 0 is the likelihood; at β = 1 the mean has
    the gradient of the squared error. The gradient is 0 at the likelihood's minimiser for every β.
    m, v > 0 and y have one shape; β is in [0, 1].
    """
    nll = 0.5 * ((label - mean).square() / variance + variance.log())
    return (nll * variance.detach() ** beta).mean()


def pinball(quantiles: Tensor, label: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean over the levels τ of max(τ (y − q), (τ − 1)(y − q)); minimiser the τ-quantile of Y | x.

    Koenker & Bassett 1978. q is (N, Q, C, H, W), an image a level; y is (N, C, H, W); τ in (0, 1).
    """
    tau = torch.tensor(levels, dtype=quantiles.dtype, device=quantiles.device)
    tau = tau.reshape(1, -1, 1, 1, 1)
    error = label[:, None] - quantiles  # (N, Q, C, H, W)
    return torch.maximum(tau * error, (tau - 1.0) * error).mean()


# between flat ground and edges of photographs, grey levels
START_STD_255 = 10.0


def start_at_usual_spread(out: torch.nn.Module, flags: VarModelFlags | BaselineModelFlags) -> None:
    """Set, in place, the bias of a fresh network so that its variance is that of `START_STD_255`.

    Nothing is done where nothing keeps the variance positive, and where quantiles come out.

    `out` is the head of the network of `flags`, whose last module is the convolution. The last
    outputs of it become the variance: all of them, or half where there is a mean beside it; in a
    sub-pixel net each pixel of a block has its own.
    """
    if isinstance(flags, BaselineModelFlags) and flags.objective == QUANTILE:
        return
    variance = (START_STD_255 / HALF_RANGE_255) ** 2
    inverse = {
        "exp": math.log(variance),
        "sigmoid": math.log(variance / (1.0 - variance)),
        "softplus": math.log(math.expm1(variance)),
    }
    if flags.last_layer_type not in inverse:
        return
    bias = list(out.children())[-1].bias
    assert isinstance(bias, torch.Tensor)
    with torch.no_grad():
        num_images = flags.num_outputs if isinstance(flags, BaselineModelFlags) else 1
        bias[-(len(bias) // num_images) :] = inverse[flags.last_layer_type]
