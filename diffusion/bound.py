"""The variational bound: bits per dimension of examples under a diffusion model.

Not for training: `GaussianDiffusion.training_losses` uses the terms below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion.forward import (
    Coefficients,
    ForwardProcess,
    eps_from_xstart,
    posterior_mean,
)
from diffusion.losses import discretized_gaussian_log_likelihood, mean_flat, normal_kl
from diffusion.types import Model, NoiseFn

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion

NATS_PER_BIT = math.log(2.0)


def vb_term_bpd(
    c: Coefficients[Tensor],
    x_start: Tensor,
    x_t: Tensor,
    t: Tensor,
    p_mean_var: Mapping[str, Tensor],
) -> Tensor:
    """Return the term of the variational bound that belongs to each example's timestep.

    KL(q(x_{t-1} | x_t, x_start) || p(x_{t-1} | x_t)) for t > 0, and at t = 0 the discretised
    -log p(x_start | x_0): L_{t-1} and L_0 of Ho et al. 2020, equation 5.

    Args:
        c: coefficients at `t`, broadcasting over `x_start`.
        x_start: (B, ...) 8-bit images in [-1, 1].
        x_t: noisy images, in the shape of `x_start`.
        t: (B,) timesteps.
        p_mean_var: what `GaussianDiffusion.p_mean_variance` returned for `x_t`.

    Returns:
        (B,) bits per dimension.
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
    """Return KL(q(x_T | x_start) || N(0, 1)), the term no network can change.

    L_T of Ho et al. 2020, equation 5.

    Args:
        process: the forward chain.
        x_start: (B, ...) examples.

    Returns:
        (B,) bits per dimension.
    """
    t = torch.full(
        x_start.shape[:1], process.num_timesteps - 1, dtype=torch.int64, device=x_start.device
    )
    mean, _, log_variance = process.q_mean_variance(x_start, t)
    return mean_flat(normal_kl(mean, log_variance, 0.0, 0.0)) / NATS_PER_BIT


def calc_bpd_loop(
    process: GaussianDiffusion,
    model: Model,
    x_start: Tensor,
    *,
    clip_denoised: bool = True,
    model_kwargs: Mapping[str, Any] | None = None,
    noise_fn: NoiseFn | None = None,
) -> dict[str, Tensor]:
    """Return the whole variational bound of each example, term by term.

    -log p(x_start) <= L_T + sum_t L_{t-1} + L_0 (Ho et al. 2020, equation 5), each term from one
    noise sample.

    Args:
        process: the diffusion process.
        model: the network.
        x_start: (B, ...) 8-bit images in [-1, 1].
        clip_denoised: clamp the predicted x_start to [-1, 1].
        model_kwargs: conditioning for the network.
        noise_fn: noise of the k-th term, k = 0 for the noisiest timestep; drawn from the global
            generator when None.

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
            out = process.p_mean_variance(
                model, x_t, t, clip_denoised=clip_denoised, model_kwargs=model_kwargs
            )
            c = process.coefficients_at(t, x_start.ndim)
            eps = eps_from_xstart(c, x_t, out["pred_xstart"])
            columns["vb"].append(vb_term_bpd(c, x_start, x_t, t, out))
            columns["xstart_mse"].append(mean_flat((out["pred_xstart"] - x_start) ** 2))
            columns["mse"].append(mean_flat((eps - noise) ** 2))
        terms = {name: torch.stack(values, dim=1) for name, values in columns.items()}  # (B, T)
        prior = prior_bpd(process, x_start)
        return {"total_bpd": terms["vb"].sum(dim=1) + prior, "prior_bpd": prior, **terms}
