"""Formulas of steps that look back at earlier ones: the same noise levels, a higher order.

Pure functions of a step's coefficients and of what the network said there and before. Not for the
loops that keep the history: those are `diffusion.samplers`.

References: DPM-Solver++ is Lu et al. 2022 (arXiv 2211.01095), PNDM Liu et al. 2022 (arXiv
2202.09778).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.forward import Coefficients, eps_from_xstart, posterior_mean

# Adams–Bashforth of orders 1 to 4 for equal steps, newest value first.
ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
MAX_ORDER = len(ADAMS_BASHFORTH)


def extrapolated_xstart(
    c: Coefficients[Tensor], pred_xstart: Tensor, previous: Tensor | None
) -> Tensor:
    """Return the x_start that a step of DPM-Solver++ (2M) rests on.

    The prediction, followed in log-SNR to the middle of the step:
    D = x_start(t) + h_t / (2 h_{t+1}) · (x_start(t) - x_start(t+1)), h_t = lambda_{t-1} - lambda_t
    (DPM-Solver++ algorithm 2). With D in the place of x_start the DDIM step is that algorithm's.
    At t = 0, where h has no end, D is the prediction.

    Args:
        c: coefficients at t.
        pred_xstart: (B, C, ...) predicted x_start at t.
        previous: that of the step before, at t + 1; None at the first step.

    Returns:
        D in the shape of `pred_xstart`.
    """
    if previous is None:
        return pred_xstart
    return torch.addcmul(pred_xstart, c.multistep_weight, pred_xstart - previous)


def sde_step(c: Coefficients[Tensor], x_t: Tensor, x_start: Tensor, noise: Tensor) -> Tensor:
    """Return x_{t-1} drawn from q(x_{t-1} | x_t, x_start), which is x_start at t = 0.

    With the x_start of `extrapolated_xstart` this is the step of SDE-DPM-Solver++ (2M): its
    factors (σ_{t-1}/σ_t)·e^{-h} of x_t, √alpha_bar_{t-1}·(1 - e^{-2h}) of x_start and
    σ_{t-1}·√(1 - e^{-2h}) of the noise are those of the posterior (DDPM equation 7), and the
    midpoint rule halves the difference as in the deterministic solver.

    Args:
        c: coefficients at t.
        x_t: (B, C, ...) noisy examples.
        x_start: in the shape of `x_t`.
        noise: standard normal in the shape of `x_t`; multiplied by 0 at t = 0.
    """
    return torch.addcmul(posterior_mean(c, x_start, x_t), c.posterior_variance.sqrt(), noise)


def linear_multistep_xstart(
    c: Coefficients[Tensor], x_t: Tensor, pred_xstart: Tensor, history: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the x_start that a pseudo linear multistep rests on, and the noise at t.

    The noise of the steps so far is combined by Adams–Bashforth,
    eps' = (55 eps_t - 59 eps_{t+1} + 37 eps_{t+2} - 9 eps_{t+3}) / 24,
    and the DDIM step takes eps' in the place of eps_t (PNDM, section 3). With fewer
    values the formula of lower order takes its place, so the first step is one of DDIM.

    Args:
        c: coefficients at t.
        x_t: (B, C, ...) noisy examples.
        pred_xstart: predicted x_start at t.
        history: noise at t + 1, t + 2, ..., at most three.

    Returns:
        x_start such that it and eps' make up `x_t`, and eps_t; both in the shape of `x_t`.
    """
    eps = eps_from_xstart(c, x_t, pred_xstart)
    if not history:
        return pred_xstart, eps
    weights = ADAMS_BASHFORTH[len(history)]
    change = (weights[0] - 1.0) * eps
    for weight, value in zip(weights[1:], history, strict=True):
        change = change + weight * value
    # By how much eps' differs, so that pred_xstart keeps its digits where x_t has little signal.
    return pred_xstart - c.sqrt_recipm1_alphas_cumprod * change, eps


def last_noise_level(alpha_bar: float) -> float:
    """Return √((1 - alpha_bar) / alpha_bar), the std of the noise beside a signal of unit size.

    Args:
        alpha_bar: of the timestep that the last step starts from, in (0, 1].
    """
    return math.sqrt((1.0 - alpha_bar) / alpha_bar)


def std_share_of_last_jump(std: float, alpha_bar: float) -> float:
    """Return sampled std / true std when all is exact but the last step.

    The last step goes from the noise level s_last to the predicted x_start. For Gaussian data that
    is E[x_start | x_t], and the variance of a conditional mean lacks that of the rest: what is left
    of s² is s⁴ / (s² + s_last²), so the std keeps √(s² / (s² + s_last²)).

    This holds for every entry of `samplers.SAMPLERS` and every type of variance: all of them end at
    the predicted x_start of t = 0 without noise. It is what a sampler keeps that has the right law
    at t = 0; the steps before it lose or add variance of their own.

    Args:
        std: true std s > 0 of the data, in units of x_start.
        alpha_bar: of the timestep that the last step starts from, in (0, 1].

    Returns:
        A share in (0, 1].

    Raises:
        ValueError: for a std or a share of signal that is not positive.
    """
    if not (std > 0.0 and 0.0 < alpha_bar <= 1.0):
        raise ValueError(
            f"std must be positive and alpha_bar in (0, 1], got {std:g} and {alpha_bar:g}"
        )
    return std / math.hypot(std, last_noise_level(alpha_bar))
