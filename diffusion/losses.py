"""Likelihood terms of Gaussians and of 8-bit images, in nats.

Not for training objectives: `GaussianDiffusion.training_losses` puts these terms together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# An 8-bit image in [-1, 1] has levels 2/255 apart, so a level reaches half of that to each side.
HALF_LEVEL = 1.0 / 255.0
# Anything beyond is the outermost level: the next one lies at 1 - 2/255 = 0.992.
EDGE = 0.999
MIN_PROBABILITY = 1e-12


def mean_flat(values: Tensor) -> Tensor:
    """Return the mean over all axes but the first: (B, ...) to (B,)."""
    return values.flatten(start_dim=1).mean(dim=1)


def normal_kl(
    mean1: Tensor | float, logvar1: Tensor | float, mean2: Tensor | float, logvar2: Tensor | float
) -> Tensor:
    """Return KL(N(mean1, e^logvar1) || N(mean2, e^logvar2)) per element, in nats.

    KL = (-1 + logvar2 - logvar1 + e^(logvar1 - logvar2) + (mean1 - mean2)² e^(-logvar2)) / 2.

    Args:
        mean1: mean of the first Gaussian, any shape that broadcasts with the others.
        logvar1: its log variance.
        mean2: mean of the second Gaussian.
        logvar2: its log variance.

    Returns:
        The divergences, in the broadcast shape.

    Raises:
        ValueError: when no argument is a tensor.
    """
    reference = next((v for v in (mean1, logvar1, mean2, logvar2) if isinstance(v, Tensor)), None)
    if reference is None:
        raise ValueError("normal_kl needs at least one tensor, got four numbers")
    lv1, lv2 = (
        v
        if isinstance(v, Tensor)
        else torch.full((), v, dtype=reference.dtype, device=reference.device)
        for v in (logvar1, logvar2)
    )
    squared_distance = (mean1 - mean2) ** 2
    return 0.5 * (-1.0 + lv2 - lv1 + torch.exp(lv1 - lv2) + squared_distance * torch.exp(-lv2))


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """Return the standard normal distribution function, up to 3e-4.

    Phi(x) = (1 + tanh(√(2/π)(x + 0.044715 x³))) / 2, the approximation under which published
    bits per dimension were computed (Page 1977).
    """
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, *, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return the log probability that a Gaussian gives to the 8-bit level of each value.

    log( Phi((x + 1/255 - mean)/scale) - Phi((x - 1/255 - mean)/scale) ); the outermost levels
    reach to infinity (Ho et al. 2020, equation 13). Probabilities are at least 1e-12.

    Args:
        x: image in [-1, 1] whose values are multiples of 2/255 away from -1.
        means: means, in the shape of `x`.
        log_scales: log standard deviations, in the shape of `x`.

    Returns:
        Log probabilities in nats, in the shape of `x`.
    """
    centered = x - means
    inverse_scale = torch.exp(-log_scales)
    cdf_upper = approx_standard_normal_cdf(inverse_scale * (centered + HALF_LEVEL))
    cdf_lower = approx_standard_normal_cdf(inverse_scale * (centered - HALF_LEVEL))
    probability = torch.where(
        x < -EDGE,
        cdf_upper,
        torch.where(x > EDGE, 1.0 - cdf_lower, cdf_upper - cdf_lower),
    )
    return torch.log(probability.clamp(min=MIN_PROBABILITY))
