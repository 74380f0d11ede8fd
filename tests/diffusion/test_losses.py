"""Likelihood terms against torch's distributions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffusion.likelihood import (
    approx_standard_normal_cdf,
    discretized_gaussian_log_likelihood,
    mean_flat,
    normal_kl,
)
from tests.diffusion.chains import standard_normal


def test_kl_is_that_of_two_gaussians() -> None:
    mean1, logvar1, mean2, logvar2 = standard_normal(0, (4, 5, 6)).unbind(0)
    expected = kl_divergence(
        Normal(mean1, (0.5 * logvar1).exp()), Normal(mean2, (0.5 * logvar2).exp())
    )
    torch.testing.assert_close(normal_kl(mean1, logvar1, mean2, logvar2), expected)


def test_kl_takes_numbers_for_any_but_one_argument() -> None:
    logvar = standard_normal(1, (7,))
    expected = kl_divergence(Normal(0.5, 1.0), Normal(torch.zeros(7), (0.5 * logvar).exp()))
    torch.testing.assert_close(normal_kl(0.5, 0.0, 0.0, logvar), expected)


def test_cdf_approximation_is_within_its_stated_error() -> None:
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    exact = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    error = (approx_standard_normal_cdf(x) - exact).abs().max()
    assert 1e-4 < error < 3e-4


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.3), (-1.2, 0.05), (0.9, 2.0)])
def test_probabilities_of_all_levels_sum_to_one(mean: float, std: float) -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log_probabilities = discretized_gaussian_log_likelihood(
        levels, means=torch.full_like(levels, mean), log_scales=torch.full_like(levels, std).log()
    )
    # Up to the floor of 1e-12 for each level.
    assert log_probabilities.exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_narrow_gaussian_on_a_level_has_a_finite_likelihood_everywhere() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    log_scales = torch.full((2,), -20.0, requires_grad=True)
    result = discretized_gaussian_log_likelihood(x, means=torch.zeros(2), log_scales=log_scales)
    torch.testing.assert_close(result, torch.tensor([0.0, math.log(1e-12)]))
    result.sum().backward()
    assert log_scales.grad is not None
    assert log_scales.grad.isfinite().all()


def test_mean_flat_keeps_the_first_axis() -> None:
    x = standard_normal(2, (3, 2, 4, 5))
    torch.testing.assert_close(mean_flat(x), torch.stack([row.mean() for row in x]))
