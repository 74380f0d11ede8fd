"""The forward chain q: everything that follows from the betas alone, without a network.

Notation: alpha_t = 1 - beta_t, alpha_bar_t = prod_{s<=t} alpha_s; t = 0 is the first noisy step,
so "x_{-1}" is x_start.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffusion.schedules import Float64Array, check_betas

A = TypeVar("A")

# Where no signal is left the reciprocals are finite but beyond float32's resolution, so that the
# noise told from x_start is x_t itself, which is the limit, and not undefined.
MIN_ALPHAS_CUMPROD = 1e-30


class DeviceTable:
    """A constant array that is copied to each device once.

    A copy inside a sampling loop would make the host wait for the device at every step.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """Return the array as a tensor on `device`."""
        if device not in self._copies:
            self._copies[device] = torch.tensor(self._values, device=device)
        return self._copies[device]


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients(Generic[A]):
    """The numbers of each timestep: (T,) float64 arrays, or float32 tensors to multiply x with."""

    betas: A  # variance of q(x_t | x_{t-1}), in (0, 1]
    log_betas: A
    alphas_cumprod: A  # alpha_bar_t, the share of the signal's variance that is left at t
    alphas_cumprod_prev: A  # alpha_bar_{t-1}; 1 at t = 0
    alphas_cumprod_next: A  # alpha_bar_{t+1}; 0 at the last step
    sqrt_alphas_cumprod: A
    sqrt_one_minus_alphas_cumprod: A  # std of q(x_t | x_start)
    log_one_minus_alphas_cumprod: A
    sqrt_recip_alphas_cumprod: A  # √(1/alpha_bar_t)
    sqrt_recipm1_alphas_cumprod: A  # √(1/alpha_bar_t - 1)
    posterior_variance: A  # of q(x_{t-1} | x_t, x_start); 0 at t = 0
    posterior_log_variance_clipped: A  # its logarithm, with that of t = 1 in place of log 0
    posterior_mean_coef1: A  # factor of x_start in the mean of q(x_{t-1} | x_t, x_start)
    posterior_mean_coef2: A  # factor of x_t in it
    ddim_coef1: A  # √alpha_bar_{t-1} - √alpha_bar_t·ddim_coef2, of x_start in a step of DDIM
    ddim_coef2: A  # √((1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)), of x_t in it
    # betas, with posterior_variance of t = 1 at t = 0: a better decoder than the first beta.
    large_variance: A
    large_log_variance: A
    noise_mask: A  # 0 at t = 0, where a step adds no noise, else 1
    # (lambda_{t-1} - lambda_t) / (2 (lambda_t - lambda_{t+1})), half the ratio of this step to the
    # one before it in log-SNR; 0 at both ends, where one of them is missing or without end.
    multistep_weight: A
    # Factors of the latest difference of predictions and of the one before in a step of order 3.
    third_order_weight: A
    third_order_weight_before: A
    # Factor of the change of the noise within a pair of steps, in the second of them.
    paired_weight: A


def cumulated_alphas(betas: Float64Array) -> Float64Array:
    """Return alpha_bar_t = prod_{s<=t} (1 - beta_s): (T,) to (T,)."""
    return np.asarray(np.cumprod(1.0 - betas), dtype=np.float64)


def half_log_snr(alphas_cumprod: Float64Array) -> Float64Array:
    """Return lambda = log(√alpha_bar / √(1 - alpha_bar)), the logarithm of signal over noise.

    Lu et al. 2022 (arXiv 2211.01095); (T,) to (T,), finite where no signal is left.
    """
    signal = np.maximum(alphas_cumprod, MIN_ALPHAS_CUMPROD)
    result: Float64Array = 0.5 * (np.log(signal) - np.log1p(-alphas_cumprod))
    return result


def _multistep_weight(alphas_cumprod: Float64Array) -> Float64Array:
    steps = -np.diff(half_log_snr(alphas_cumprod))  # (T-1,), lambda_t - lambda_{t+1}
    weight = np.zeros_like(alphas_cumprod)
    weight[1:-1] = steps[:-1] / (2.0 * steps[1:])
    return weight


def third_order_weights(alphas_cumprod: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return A and B of each step of DPM-Solver++ (3M), (T,) each.

    The step follows the parabola P(u) through the predictions D_t, D_{t+1} and D_{t+2}, u = lambda
    - lambda_t, in place of a constant: D = ∫ e^{u-h} P(u) du / ∫ e^{u-h} du over the step, 0 ≤ u ≤
    h, which is D_t + A (D_t - D_{t+1}) + B (D_{t+1} - D_{t+2}). The integrals of e^{u-h}, u e^{u-h}
    and u² e^{u-h} are 1 - e^{-h}, h - 1 + e^{-h} and h² - 2h + 2 - 2e^{-h} (Lu et al. 2022, arXiv
    2211.01095, appendix B). With two predictions it is a line, B = 0; with one, and at t = 0, where
    h has no end, both are 0.
    """
    steps = -np.diff(half_log_snr(alphas_cumprod))  # (T-1,), lambda_t - lambda_{t+1}
    first, second = np.zeros_like(alphas_cumprod), np.zeros_like(alphas_cumprod)
    h, before = steps[:-1], steps[1:]  # of t = 1 ... T-2
    area = -np.expm1(-h)
    mean = (h - area) / area
    first[1:-1] = mean / before
    h, before, earliest = steps[:-2], steps[1:-1], steps[2:]  # of t = 1 ... T-3
    area = -np.expm1(-h)
    mean, square = (h - area) / area, (h * h - 2.0 * (h - area)) / area
    curve = (square + before * mean) / (before + earliest)
    first[1:-2] += curve / before
    second[1:-2] = -curve / earliest
    return first, second


def paired_weights(alphas_cumprod: Float64Array) -> Float64Array:
    """Return W of each step of DPM-Solver-2 that is the second of its pair, (T,).

    A pair goes from s = t + 1 over t to t - 1, with h = lambda_{t-1} - lambda_s and r the share of
    h that lies before t: x_{t-1} = (√alpha_bar_{t-1}/√alpha_bar_s) x_s - σ_{t-1} (e^h - 1) (eps_s +
    (eps_t - eps_s) / (2r)), where eps_t is the noise at the x_t of the DDIM step from s (Lu et al.
    2022, arXiv 2206.00927, algorithm 4). DDIM steps with the same noise make up one long step, so
    that is the DDIM step from this x_t with eps_s + W (eps_t - eps_s), W = (e^h - 1) / (2r
    (e^{(1-r)h} - 1)). It is 1, a step of DDIM, at both ends, and after an s without signal, where h
    has no end.
    """
    log_snr = half_log_snr(alphas_cumprod)
    weight = np.ones_like(alphas_cumprod)
    whole, second = log_snr[:-2] - log_snr[2:], log_snr[:-2] - log_snr[1:-1]
    share = 1.0 - second / whole
    has_signal = alphas_cumprod[2:] > MIN_ALPHAS_CUMPROD
    weight[1:-1][has_signal] = (np.expm1(whole) / (2.0 * share * np.expm1(second)))[has_signal]
    return weight


def compute_coefficients(betas: Float64Array) -> Coefficients[Float64Array]:
    """Return all coefficients of the chain with these (T,) betas in (0, 1].

    Ho et al. 2020 (arXiv 2006.11239), equations 4, 6 and 7.
    """
    alphas_cumprod = cumulated_alphas(betas)
    prev = np.append(1.0, alphas_cumprod[:-1])
    following = np.append(alphas_cumprod[1:], 0.0)
    one_minus = 1.0 - alphas_cumprod
    posterior_variance = betas * (1.0 - prev) / one_minus
    # A chain of one step has no t = 1 to borrow from.
    first_variance = posterior_variance[1] if betas.size > 1 else betas[0]
    clipped_variance = np.append(first_variance, posterior_variance[1:])
    large_variance = np.append(first_variance, betas[1:])
    recip = 1.0 / np.maximum(alphas_cumprod, MIN_ALPHAS_CUMPROD)
    ddim_coef2 = np.sqrt((1.0 - prev) / one_minus)
    third_order_weight, third_order_weight_before = third_order_weights(alphas_cumprod)
    return Coefficients(
        betas=betas,
        log_betas=np.log(betas),
        alphas_cumprod=alphas_cumprod,
        alphas_cumprod_prev=prev,
        alphas_cumprod_next=following,
        sqrt_alphas_cumprod=np.sqrt(alphas_cumprod),
        sqrt_one_minus_alphas_cumprod=np.sqrt(one_minus),
        log_one_minus_alphas_cumprod=np.log(one_minus),
        sqrt_recip_alphas_cumprod=np.sqrt(recip),
        sqrt_recipm1_alphas_cumprod=np.sqrt(recip - 1.0),
        posterior_variance=posterior_variance,
        posterior_log_variance_clipped=np.log(clipped_variance),
        posterior_mean_coef1=betas * np.sqrt(prev) / one_minus,
        posterior_mean_coef2=(1.0 - prev) * np.sqrt(1.0 - betas) / one_minus,
        ddim_coef1=np.sqrt(prev) - np.sqrt(alphas_cumprod) * ddim_coef2,
        ddim_coef2=ddim_coef2,
        large_variance=large_variance,
        large_log_variance=np.log(large_variance),
        noise_mask=np.append(0.0, np.ones(betas.size - 1)),
        multistep_weight=_multistep_weight(alphas_cumprod),
        third_order_weight=third_order_weight,
        third_order_weight_before=third_order_weight_before,
        paired_weight=paired_weights(alphas_cumprod),
    )


def respaced_betas(betas: Float64Array, kept: NDArray[np.int64]) -> Float64Array:
    """Return the (N,) betas of the chain that visits N timesteps S_0 < S_1 < ... of T.

    beta'_i = 1 - alpha_bar_{S_i} / alpha_bar_{S_{i-1}}, so that alpha_bar is unchanged at each of
    them (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 19).
    """
    alphas_cumprod = cumulated_alphas(betas)[kept]
    result: Float64Array = 1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return result


class ForwardProcess:
    """The chain q(x_t | x_{t-1}) = N(√(1 - beta_t) x_{t-1}, beta_t).

    Attributes:
        coefficients: the numbers of all timesteps in float64, on the host.
        num_timesteps: length T of the chain.
    """

    def __init__(self, betas: ArrayLike) -> None:
        self.coefficients = compute_coefficients(check_betas(betas))
        self.num_timesteps = int(self.coefficients.betas.size)
        columns = [getattr(self.coefficients, field.name) for field in fields(Coefficients)]
        self._table = DeviceTable(np.stack(columns).astype(np.float32))  # (num_coefficients, T)

    def coefficients_at(self, t: Tensor, num_dims: int) -> Coefficients[Tensor]:
        """Return the coefficients of each example, at the int64 timesteps `t` (B,).

        float32 tensors (B, 1, ..., 1) on the device of `t`, with `num_dims` axes as what they are
        to be multiplied with.
        """
        # One gather for all coefficients: a launch each would cost more than the arithmetic.
        rows = self._table.on(t.device)[:, t]  # (num_coefficients, B)
        rows = rows.view(*rows.shape, *(1,) * (num_dims - 1))  # (num_coefficients, B, 1, ..., 1)
        return Coefficients(*rows.unbind(0))

    def q_mean_variance(self, x_start: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, variance and log variance of q(x_t | x_start), in the shape of `x_start`.

        N(√alpha_bar_t x_start, 1 - alpha_bar_t) (Ho et al. 2020, equation 4); timesteps `t` (B,).
        """
        c = self.coefficients_at(t, x_start.ndim)
        return (
            c.sqrt_alphas_cumprod * x_start,
            (c.sqrt_one_minus_alphas_cumprod**2).expand_as(x_start),
            c.log_one_minus_alphas_cumprod.expand_as(x_start),
        )

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return x_t = √alpha_bar_t x_start + √(1 - alpha_bar_t) noise, in the shape of `x_start`.

        Ho et al. 2020, equation 4, at timesteps `t` (B,). The noise is standard normal; None: drawn
        from the global generator.
        """
        c = self.coefficients_at(t, x_start.ndim)
        noise = torch.randn_like(x_start) if noise is None else noise
        return c.sqrt_alphas_cumprod * x_start + c.sqrt_one_minus_alphas_cumprod * noise


def posterior_mean(c: Coefficients[Tensor], x_start: Tensor, x_t: Tensor) -> Tensor:
    """Return the mean of q(x_{t-1} | x_t, x_start) (Ho et al. 2020, equation 7)."""
    return _combined(c.posterior_mean_coef1, x_start, c.posterior_mean_coef2, x_t)


def xstart_from_eps(c: Coefficients[Tensor], x_t: Tensor, eps: Tensor) -> Tensor:
    """Return the x_start that noise `eps` turned into `x_t`: equation 4 solved for x_start."""
    return _combined(-c.sqrt_recipm1_alphas_cumprod, eps, c.sqrt_recip_alphas_cumprod, x_t)


def eps_from_xstart(c: Coefficients[Tensor], x_t: Tensor, x_start: Tensor) -> Tensor:
    """Return the noise that turned `x_start` into `x_t`: equation 4 solved for the noise."""
    # By the factors of xstart_from_eps, so that one undoes the other down to the rounding.
    return (c.sqrt_recip_alphas_cumprod * x_t - x_start) / c.sqrt_recipm1_alphas_cumprod


def ddim_step(c: Coefficients[Tensor], x_t: Tensor, x_start: Tensor) -> Tensor:
    """Return the x_{t-1} with the x_start and the noise of x_t, which is x_start at t = 0.

    √alpha_bar_{t-1} x_start + √(1 - alpha_bar_{t-1}) eps: Song et al. 2021 (arXiv 2010.02502),
    equation 12 at sigma = 0, with eps written out in x_t and x_start.
    """
    return _combined(c.ddim_coef1, x_start, c.ddim_coef2, x_t)


def _combined(factor1: Tensor, value1: Tensor, factor2: Tensor, value2: Tensor) -> Tensor:
    """Return factor1·value1 + factor2·value2 with one tensor less on the way."""
    return torch.addcmul(factor2 * value2, factor1, value1)
