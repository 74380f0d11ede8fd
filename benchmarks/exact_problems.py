"""Laws whose exact denoiser is known: what a perfectly trained network would tell a sampler.

Not for sampling and measuring: that is `benchmarks.fidelity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion.forward import DeviceTable
from diffusion.reverse import ReverseProcess
from oracle.denoiser import posterior_mean_of_y, posterior_variance_of_y
from oracle.law import OracleLaw, oracle_law


class Problem(Protocol):
    """A law of images (C, H, W) in [-1, 1], pixel by pixel."""

    @property
    def mean(self) -> Tensor:
        """E[x_start], (1, C, H, W)."""

    @property
    def variance(self) -> Tensor:
        """Var[x_start], (1, C, H, W)."""

    def denoised(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """E[x_start | x_t], (B, C, H, W), for alpha_bar (B, 1, 1, 1)."""

    def rest_variance(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """Var[x_start | x_t] pixel by pixel, broadcasting over x_t."""


@dataclass(frozen=True)
class GaussianProblem:
    """Independent pixels N(centre, std²): x_start and x_t are jointly Gaussian.

    E[x_start | x_t] = centre + √ᾱ std²/(ᾱ std² + 1 - ᾱ) · (x_t - √ᾱ centre),
    Var[x_start | x_t] = std² (1 - ᾱ)/(ᾱ std² + 1 - ᾱ).
    """

    centre: float
    std: float
    shape: tuple[int, ...]

    @property
    def mean(self) -> Tensor:
        """The centre everywhere."""
        return torch.full((1, *self.shape), self.centre)

    @property
    def variance(self) -> Tensor:
        """std² everywhere."""
        return torch.full((1, *self.shape), self.std**2)

    def denoised(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """See `Problem`."""
        gain = alpha_bar.sqrt() * self.std**2 / (alpha_bar * self.std**2 + 1.0 - alpha_bar)
        return self.centre + gain * (x_t - alpha_bar.sqrt() * self.centre)

    def rest_variance(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """See `Problem`."""
        return self.std**2 * (1.0 - alpha_bar) / (alpha_bar * self.std**2 + 1.0 - alpha_bar)


class OracleProblem:
    """p(Y | X = low_res) of the oracle for one low-res image.

    Args:
        low_res: (1, 3, h, w) in [-0.5, 0.5].
        factor: high-res pixels along the side of a low-res one.
    """

    def __init__(self, low_res: Tensor, factor: int) -> None:
        self._law: OracleLaw = oracle_law(low_res, factor)
        self.mean, self.variance = self._law.mean, self._law.variance

    def denoised(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """See `Problem`."""
        return posterior_mean_of_y(self._law, x_t, alpha_bar)

    def rest_variance(self, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        """See `Problem`."""
        return posterior_variance_of_y(self._law, x_t, alpha_bar)


def exact_model(
    problem: Problem, process: ReverseProcess, is_variance_learned: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """The network that training would end at if it could represent anything.

    It predicts x_start. With `is_variance_learned` the log variance comes behind it that minimises
    the variational bound among diagonal ones (Bao et al. 2022, arXiv 2201.06503, theorem 1):
    posterior variance + (factor of x_start in the posterior mean)² · Var[x_start | x_t].

    Args:
        problem: the law of the images.
        process: to look the noise levels of the network's timesteps up in.
        is_variance_learned: return (B, 2C, H, W) instead of (B, C, H, W).

    Returns:
        `model(x_t, t)` with t as the process hands them out.
    """
    columns = torch.zeros(3, process.original_num_steps, dtype=torch.float64)
    for row, name in enumerate(("alphas_cumprod", "posterior_variance", "posterior_mean_coef1")):
        columns[row, process.timestep_map] = torch.from_numpy(getattr(process.coefficients, name))
    table = DeviceTable(columns.numpy())

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        rows = table.on(t.device)[:, t].to(x_t.dtype).view(3, -1, 1, 1, 1)
        alpha_bar, fixed, gain = rows.unbind(0)  # (B, 1, 1, 1) each
        denoised = problem.denoised(x_t, alpha_bar)
        if not is_variance_learned:
            return denoised
        variance = fixed + gain**2 * problem.rest_variance(x_t, alpha_bar)
        return torch.cat([denoised, variance.log().expand_as(x_t)], dim=1)  # (B, 2C, H, W)

    return model


def oracle_problems(crops: Sequence[Tensor], factor: int, scale: float) -> list[OracleProblem]:
    """A problem for each low-res photograph.

    Args:
        crops: (3, h, w) in [-1, 1] each.
        factor: high-res pixels along the side of a low-res one.
        scale: what the photographs are multiplied with, to leave room for the spread.
    """
    return [OracleProblem(scale * crop[None], factor) for crop in crops]
