"""The variational bound of a diffusion model: its terms, and bits per dimension of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion.forward import Coefficients, ForwardProcess, eps_from_xstart, posterior_mean
from diffusion.reverse import ReverseProcess
from diffusion.types import Model, NoiseFn, StepOptions

NATS_PER_BIT = math.log(2.0)
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

    KL = (-1 + logvar2 - logvar1 + e^(logvar1 - logvar2) + (mean1 - mean2)² e^(-logvar2)) / 2, in
    the shape that means and log variances broadcast to.
    """
    lv1, lv2 = torch.as_tensor(logvar1), torch.as_tensor(logvar2)
    squared_distance = (mean1 - mean2) ** 2
    return 0.5 * (-1.0 + lv2 - lv1 + torch.exp(lv1 - lv2) + squared_distance * torch.exp(-lv2))


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """Return the standard normal distribution function, up to 3e-4.

    Phi(x) = (1 + tanh(√(2/π)(x + 0.044715 x³))) / 2, the approximation under which published
    bits per dimension were computed (Page 1977).
    """
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, *, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return the log probability that a Gaussian gives to the 8-bit level of each value, in nats.

    log( Phi((x + 1/255 - mean)/scale) - Phi((x - 1/255 - mean)/scale) ); the outermost levels
    reach to infinity (Ho et al. 2020, equation 13). Probabilities are at least 1e-12. All tensors
    are of one shape; the values of `x`, in [-1, 1], are multiples of 2/255 away from -1.
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


def vb_term_bpd(
    c: Coefficients[Tensor],
    x_start: Tensor,
    x_t: Tensor,
    t: Tensor,
    p_mean_var: Mapping[str, Tensor],
) -> Tensor:
    """Return the term of the bound of each example's timestep, (B,) bits per dimension.

    KL(q(x_{t-1} | x_t, x_start) || p(x_{t-1} | x_t)) for t > 0, and at t = 0 the discretised
    -log p(x_start | x_0): L_{t-1} and L_0 of Ho et al. 2020, equation 5.

    Args:
        c: coefficients at `t`, broadcasting over `x_start`.
        x_start: (B, ...) 8-bit images in [-1, 1].
        x_t: noisy images, in the shape of `x_start`.
        t: (B,) timesteps.
        p_mean_var: what `ReverseProcess.p_mean_variance` returned for `x_t`.
    """
    mean, log_variance = p_mean_var["mean"], p_mean_var["log_variance"]
    true_mean = posterior_mean(c, x_start, x_t)
    kl = normal_kl(true_mean, c.posterior_log_variance_clipped, mean, log_variance)
    log_likelihood = discretized_gaussian_log_likelihood(
        x_start, means=mean, log_scales=0.5 * log_variance
    )
    nats = torch.where(t == 0, -mean_flat(log_likelihood), mean_flat(kl))  # (B,)
    return nats / NATS_PER_BIT


def prior_bpd(process: ForwardProcess, x_start: Tensor) -> Tensor:
    """Return KL(q(x_T | x_start) || N(0, 1)) of examples (B, ...), (B,) bits per dimension.

    The term no network can change, L_T of Ho et al. 2020, equation 5.
    """
    t = torch.full(
        x_start.shape[:1], process.num_timesteps - 1, dtype=torch.int64, device=x_start.device
    )
    mean, _, log_variance = process.q_mean_variance(x_start, t)
    return mean_flat(normal_kl(mean, log_variance, 0.0, 0.0)) / NATS_PER_BIT


def calc_bpd_loop(
    process: ReverseProcess,
    model: Model,
    x_start: Tensor,
    options: StepOptions | None = None,
    noise_fn: NoiseFn | None = None,
) -> dict[str, Tensor]:
    """Return the whole variational bound of each example, term by term.

    -log p(x_start) <= L_T + sum_t L_{t-1} + L_0 (Ho et al. 2020, equation 5), each term from one
    noise sample.

    Args:
        process: the reverse chain.
        model: the network.
        x_start: (B, ...) 8-bit images in [-1, 1].
        options: as of `ReverseProcess.p_mean_variance`.
        noise_fn: noise of the k-th term, k = 0 for the noisiest timestep; None: `torch.randn_like`.

    Returns:
        `total_bpd` (B,) and `prior_bpd` (B,), bits per dimension; and per timestep, the noisiest
        first, (B, T): `vb` in bits per dimension, `xstart_mse` and `mse`, the squared errors of
        the predicted x_start and of the noise it implies.
    """
    columns: dict[str, list[Tensor]] = {"vb": [], "xstart_mse": [], "mse": []}
    with torch.no_grad():
        for k, t in enumerate(process.descending_timesteps(x_start)):
            noise = torch.randn_like(x_start) if noise_fn is None else noise_fn(k)
            x_t = process.q_sample(x_start, t, noise=noise)
            out = process.p_mean_variance(model, x_t, t, options)
            c = process.coefficients_at(t, x_start.ndim)
            eps = eps_from_xstart(c, x_t, out["pred_xstart"])
            columns["vb"].append(vb_term_bpd(c, x_start, x_t, t, out))
            columns["xstart_mse"].append(mean_flat((out["pred_xstart"] - x_start) ** 2))
            columns["mse"].append(mean_flat((eps - noise) ** 2))
        terms = {name: torch.stack(values, dim=1) for name, values in columns.items()}  # (B, T)
        prior = prior_bpd(process, x_start)
        return {"total_bpd": terms["vb"].sum(dim=1) + prior, "prior_bpd": prior, **terms}
